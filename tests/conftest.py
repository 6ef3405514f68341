"""Shared fixtures: one thread, so that results do not depend on the machine, and small agents."""

import os

os.environ.setdefault("WANDB_MODE", "offline")
# of the runs that tests start: as many tests as cores go on at once, and a product whose threads wait for a core that
# another test has takes a hundred times as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import tests.strict_types

tests.strict_types.install()

from datamodules import parts  # noqa: E402
from tests.rigs import PARTS  # noqa: E402
from trainers.command import registry  # noqa: E402
from worldmodel.actors.squashed_normal import SquashedNormalActor  # noqa: E402
from worldmodel.agents.latent_mpc import LatentMPC  # noqa: E402
from worldmodel.decoders.patch import PatchDecoder  # noqa: E402
from worldmodel.encoders.patch import PatchEncoder  # noqa: E402
from worldmodel.heads.scalar import ScalarHead  # noqa: E402
from worldmodel.interfaces import Batch  # noqa: E402
from worldmodel.observations import ObservationDecoder, ObservationEncoder, ObservationNorm, PixelNorm  # noqa: E402
from worldmodel.planners.cem import CEM  # noqa: E402
from worldmodel.policies.backprop import BackpropImagination  # noqa: E402
from worldmodel.policy_spec import PolicySpec  # noqa: E402

PIXELS = (3, 16, 16)
A = 2
DYNAMICS: dict[str, dict[str, object]] = {
    "rssm_gaussian": {"deterministic": 16, "stochastic": 4, "hidden": 16},
    "rssm_categorical": {"deterministic": 16, "groups": 3, "classes": 4, "hidden": 16},
    "gaussian": {"latent_dim": 6, "hidden": 16},
    "ensemble": {
        "members": 3,
        "hidden": 16,
        "filter": {"name": "rssm_gaussian", "deterministic": 12, "stochastic": 4, "hidden": 16},
    },
    "laplace": {
        "members": 3,
        "filter": {"name": "rssm_gaussian", "deterministic": 12, "stochastic": 4, "hidden": 16},
    },
    "variational": {"members": 3, "filter": {"name": "gaussian", "latent_dim": 6, "hidden": 16}},
    "smoothing": {"latent_dim": 6, "hidden": 16},
    "deterministic": {"latent_dim": 12, "hidden": 16},
}

OBJECTIVES: dict[str, dict[str, object]] = {
    "reconstruction": {"decode_fraction": 0.5},
    "overshooting": {"decode_fraction": 0.5, "steps": 3},
    "latent_consistency": {"steps": 2},
    "slow_consistency": {"steps": 2, "rate": 0.1},
    "info_nce": {},
    "barlow": {},
    "sigreg": {"code_dim": 4, "hidden": 8, "projections": 16},
}


@pytest.fixture(autouse=True)
def parts_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command activates is gone after a test, and the counting environment is there again."""
    monkeypatch.setenv(parts.VARIABLE, str(PARTS))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def random_batch(B: int = 3, T: int = 7, *, first: int | None = 0) -> Batch:
    """Random rows; `first` is the row that opens an episode in every window, None for none."""
    flags = torch.zeros(B, T, dtype=torch.bool)
    is_first = flags.clone()
    if first is not None:
        is_first[:, first] = True
    return Batch(
        observation={"pixels": torch.randint(0, 256, (B, T, *PIXELS), dtype=torch.uint8)},
        action=torch.rand(B, T, A) * 2 - 1,
        reward=torch.rand(B, T),
        is_first=is_first,
        is_last=flags,
        is_terminal=flags,
    )


def window(action: torch.Tensor, is_first: torch.Tensor | None = None) -> Batch:
    """A batch of these actions [B T A], with blank frames and rewards, for losses that read no more."""
    B, T = action.shape[:2]
    flags = torch.zeros(B, T, dtype=torch.bool)
    pixels = torch.zeros(B, T, *PIXELS, dtype=torch.uint8)
    return Batch({"pixels": pixels}, action, torch.zeros(B, T), flags if is_first is None else is_first, flags, flags)


def small_dynamics(name: str, embed_dim: int, kind: type | None = None) -> torch.nn.Module:
    """Any of `DYNAMICS` with a few thousand weights, or another kind with the same options."""
    if kind is not None:
        return kind(embed_dim=embed_dim, action_dim=A, **DYNAMICS[name])
    return registry.make("worldmodel.dynamics", {"name": name, **DYNAMICS[name]}, embed_dim=embed_dim, action_dim=A)


def small_agent(
    name: str = "rssm_gaussian",
    *,
    policy: bool = True,
    objective: str = "reconstruction",
    kind: type | None = None,
    **options: object,
) -> LatentMPC:
    """An agent of a few thousand weights on 16x16 frames."""
    encoder = ObservationEncoder({"pixels": PatchEncoder(pixels=PIXELS, channels=(8, 8))})
    dynamics = small_dynamics(name, encoder.embed_dim, kind)
    sizes = {"latent_dim": dynamics.latent_dim, "hidden": 16}
    chosen = {"name": objective, **OBJECTIVES[objective]}
    tied = registry.make("worldmodel.objectives", chosen, encoder=encoder, dynamics=dynamics)
    painter = PatchDecoder(latent_dim=dynamics.latent_dim, pixels=PIXELS, channels=(8, 8)) if tied.decodes else None
    spec = PolicySpec(
        latent_dim=dynamics.latent_dim,
        action_dim=A,
        discount=0.99,
        build_actor=lambda options: SquashedNormalActor(action_dim=A, **sizes),
        build_value=lambda inputs: ScalarHead(scale=100.0, latent_dim=inputs, hidden=16),
    )
    return LatentMPC(
        norm=ObservationNorm({"pixels": PixelNorm(PIXELS)}),
        encoder=encoder,
        decoder=None if painter is None else ObservationDecoder({"pixels": painter}),
        objective=tied,
        dynamics=dynamics,
        reward=ScalarHead(scale=1.0, **sizes),
        policy=BackpropImagination(spec=spec, horizon=3, starts=8) if policy else None,
        planner=CEM(horizon=3, candidates=16, elites=4, iterations=2, policy_candidates=4 if policy else 0),
        action_dim=A,
        discount=0.99,
        **{"unroll": 2 if name == "deterministic" else 0, **options},
    )
