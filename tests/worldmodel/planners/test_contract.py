"""What every planner promises, whatever the model says: finite, in bounds, deterministic, row by row, in time."""

import math

import pytest
import torch
from torch import Tensor

from worldmodel.coloured_noise import colour, mixing
from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise, Planner
from worldmodel.planners.cem import CEM
from worldmodel.planners.cem_best import BestCEM
from worldmodel.planners.cem_gradient import GradientCEM
from worldmodel.planners.confidence import ConfidencePlanner
from worldmodel.planners.ensemble import EnsemblePlanner
from worldmodel.planners.gradient import GradientShooting
from worldmodel.planners.gumbel import GumbelMCTS
from worldmodel.planners.icem import ICEM
from worldmodel.planners.ilqr import ILQR
from worldmodel.planners.mppi import MPPI
from worldmodel.planners.random_shooting import RandomShooting
from worldmodel.planners.seeded import SeededCEM
from worldmodel.planners.uct import UCT

H, A, D = 5, 2, 3
PLANNERS = {
    "random": RandomShooting(horizon=H, candidates=40),
    "random_policy": RandomShooting(horizon=H, candidates=40, policy_candidates=8),
    "cem": CEM(horizon=H, candidates=30, elites=5, iterations=3),
    "cem_policy": CEM(horizon=H, candidates=20, elites=5, iterations=2, policy_candidates=8),
    "icem": ICEM(horizon=H, candidates=30, elites=6, iterations=3),
    "seeded": SeededCEM(horizon=H, candidates=30, elites=6, iterations=3, policy_candidates=4),
    "icem_policy": ICEM(horizon=H, candidates=30, elites=6, iterations=3, policy_candidates=4),
    "mppi": MPPI(horizon=H, candidates=30, elites=10, iterations=3),
    "mppi_policy": MPPI(horizon=H, candidates=30, elites=10, iterations=3, policy_candidates=8),
    "gradient": GradientShooting(horizon=H, candidates=4, iterations=4, policy_candidates=2),
    "cem_best": BestCEM(horizon=H, candidates=20, elites=5, iterations=2),
    "cem_gradient": GradientCEM(horizon=H, candidates=20, elites=5, iterations=2, steps=2),
    "ilqr": ILQR(horizon=H, iterations=3),
    "uct": UCT(horizon=H, iterations=12),
    "uct_policy": UCT(horizon=H, iterations=12, policy_candidates=1),
    "gumbel": GumbelMCTS(horizon=H, iterations=12, samples=6, considered=4, policy_candidates=3),
    "ensemble": EnsemblePlanner(
        search="cem", particles=4, kappa=-0.5, horizon=H, candidates=30, elites=5, iterations=3
    ),
    "ensemble_ts1": EnsemblePlanner(
        **{"search": "icem", "particles": 4, "resample": True, "noisy": True, "kappa": 0.5, "bonus": 1.0},
        **{"horizon": H, "candidates": 20, "elites": 5, "iterations": 2, "policy_candidates": 4},
    ),
    "confidence": ConfidencePlanner(kappa=-1.0, horizon=H, candidates=30, elites=5, iterations=3),
    "ensemble_gradient": EnsemblePlanner(search="gradient", particles=2, horizon=H, candidates=4, iterations=4),
}
every_planner = pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS.keys())


class World:
    """A smooth random world; `spoil` changes what it says about rewards, `spoil_state` what it says about latents.

    steps: how often it was asked. It has members too, each of which starts a little beside the latent.
    """

    action_dim, discount = A, 0.95
    members, latent_dim, noisy_dims = 2, D, D

    def __init__(self, spoil=lambda x: x, spoil_state=lambda x: x, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(7)
        self.mix = (torch.randn(D + A, D, generator=generator) / 2).to(dtype)
        self.goal = torch.randn(D, generator=generator).to(dtype)
        self.spoil, self.spoil_state, self.steps = spoil, spoil_state, 0
        self.dynamics = self

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        self.steps += 1
        return self.spoil_state(torch.tanh(torch.cat([latent, action], -1) @ self.mix))

    def moments(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        offset = torch.tensor([-0.1, 0.1])[:, None, None]
        return self.step(latent + offset, action), self.spoil_state(torch.full_like(latent, 0.1))

    def reward(self, latent: Tensor) -> Tensor:
        return self.spoil(-(latent - self.goal).square().sum(-1))

    def reward_std(self, latent: Tensor) -> Tensor:
        return self.spoil(latent.abs().sum(-1))

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: Noise) -> Tensor:
        noise = standard_normal(*latent.shape[:-1], A, generator=generator, device=latent.device)
        return torch.tanh(latent[..., :A] + 0.1 * noise)


def some(value: float, share: float):
    """Replace a fixed share of a tensor's entries."""

    def spoil(x: Tensor) -> Tensor:
        mask = (torch.arange(x.numel()) * 0.6180339887 % 1 < share).view(x.shape)
        return torch.where(mask, torch.full_like(x, value), x)

    return spoil


ADVERSARIES = {
    **{f"reward_{v}_{s}": World(some(v, s)) for v in (math.nan, math.inf, -math.inf, 1e38) for s in (0.01, 0.5, 1.0)},
    **{f"state_{v}": World(spoil_state=some(v, 0.3)) for v in (math.nan, math.inf, 1e38)},
    "constant": World(lambda x: torch.zeros_like(x)),
    "ties": World(lambda x: x.round()),
    "huge_steps": World(lambda x: 1e30 * x),
    "no_gradient": World(lambda x: x.detach()),
}


def run(planner: Planner, world: World, seed: int = 0, latent: Tensor | None = None, **options):
    latent = torch.linspace(-1, 1, 3 * D).view(3, D) if latent is None else latent
    with torch.inference_mode():
        return planner.plan(world, latent, generator=torch.Generator().manual_seed(seed), **options)


@every_planner
@pytest.mark.parametrize("world", ADVERSARIES.values(), ids=ADVERSARIES.keys())
def test_actions_are_finite_and_in_bounds(planner: Planner, world: World) -> None:
    warm = torch.full((3, H, A), 0.5)
    warm[1], warm[2] = math.nan, 1e9
    for plan in (run(planner, world), run(planner, world, warm=warm)):
        for actions in (plan.action, plan.mean):
            assert actions.isfinite().all() and actions.abs().max() <= 1
        assert torch.equal(plan.action, plan.mean[:, 0]) and plan.mean.shape == (3, H, A)
        assert not plan.value.isnan().any() and (plan.value < math.inf).all()


@every_planner
def test_same_seed_same_plan(planner: Planner) -> None:
    one, two = run(planner, World()), run(planner, World())
    assert torch.equal(one.mean, two.mean) and torch.equal(one.value, two.value)


@every_planner
def test_rows_do_not_depend_on_each_other(planner: Planner) -> None:
    latent = torch.linspace(-1, 1, 3 * D).view(3, D)
    spoiled = latent.clone()
    spoiled[1] = math.nan
    plain, beside = run(planner, World(), latent=latent), run(planner, World(), latent=spoiled)
    torch.testing.assert_close(plain.mean[[0, 2]], beside.mean[[0, 2]], rtol=0, atol=1e-5)
    assert beside.value[1] == -math.inf


@every_planner
def test_planning_beats_doing_nothing(planner: Planner) -> None:
    latent = torch.zeros(16, D)
    found = run(planner, World(), latent=latent)
    nothing = run(CEM(horizon=H, candidates=1, elites=1, iterations=1, init_std=0.0), World(), latent=latent)
    assert found.value.mean() > nothing.value.mean()


@every_planner
def test_a_deadline_returns_the_best_so_far(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only the model's steps advance: time for 40 horizons, where 2000 iterations would take 2000."""
    world = World()
    monkeypatch.setattr("worldmodel.planners.search.time.monotonic", lambda: float(world.steps))
    plan = run(planner, world, iterations=2000, deadline=40.0 * H)
    # no iteration is begun that would not end in time; what is executed may be scored once more
    assert 10 * H < world.steps <= 43 * H
    assert plan.action.isfinite().all() and plan.action.abs().max() <= 1
    if not isinstance(planner, UCT | GumbelMCTS):  # whose values are of longer paths the longer they search
        assert (plan.value >= run(planner, World(), iterations=1).value - 1e-5).all()
    late = run(planner, world, deadline=world.steps - 1.0)
    assert (plan.searched, late.searched) == (True, False)
    assert late.action.isfinite().all() and late.action.abs().max() <= 1


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("horizon", [12, 15, 64])
def test_coloured_noise_has_unit_variance_and_the_slope_of_its_name(beta: float, horizon: int) -> None:
    matrix = mixing(horizon, beta).double()
    torch.testing.assert_close((matrix @ matrix.mT).diagonal(), torch.ones(horizon).double(), rtol=0, atol=1e-6)
    # the expected periodogram of M z is the diagonal of F M Mᵀ F*
    spectrum = torch.fft.fft(matrix, dim=0).abs().square().sum(1)[1 : (horizon + 1) // 2]
    frequency = torch.arange(1, (horizon + 1) // 2).double()
    x, y = frequency.log(), spectrum.log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert abs(slope + beta) < 1e-5
    white = torch.randn(2, 3, horizon, A)
    torch.testing.assert_close(colour(white, mixing(horizon, 0.0)).std(), torch.tensor(1.0), rtol=0.3, atol=0)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient", "cem_gradient"])
def test_search_comes_close_to_the_optimum_of_a_quadratic(name: str) -> None:
    from tests.worldmodel.planners.test_cem import A as DIM
    from tests.worldmodel.planners.test_cem import H as LENGTH
    from tests.worldmodel.planners.test_cem import Quadratic

    target = torch.rand(LENGTH, DIM, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    planner = {
        "cem": CEM(horizon=LENGTH, candidates=512, elites=64, iterations=60),
        "icem": ICEM(horizon=LENGTH, candidates=256, elites=32, iterations=60, beta=0.0, decay=1.0),
        "mppi": MPPI(horizon=LENGTH, candidates=512, elites=64, iterations=60, min_std=0.0),
        "gradient": GradientShooting(horizon=LENGTH, candidates=2, iterations=300, learning_rate=0.05),
        "cem_gradient": GradientCEM(horizon=LENGTH, candidates=128, elites=16, iterations=20, steps=60),
    }[name]
    found = planner.plan(Quadratic(target), torch.zeros(1, 2), generator=torch.Generator().manual_seed(0))
    assert (found.mean[0] - target).abs().max() < 2e-2


@every_planner
def test_a_row_s_noise_is_its_generator_s(planner: Planner) -> None:
    """With a generator for each environment a row's plan is the same whoever else is planned for."""
    latent = torch.linspace(-1, 1, 3 * D).view(3, D)

    def plans(rows: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(row) for row in rows]
        return planner.plan(World(), latent[rows], generator=generators).mean

    torch.testing.assert_close(plans([0, 1, 2])[[1]], plans([1]), rtol=0, atol=1e-5)


@every_planner
def test_a_world_in_float64_has_the_same_plan(planner: Planner) -> None:
    """A world of one's own may compute in float64: noise is the same, so the plan is but for rounding."""
    latent = torch.linspace(-1, 1, 3 * D).view(3, D)
    single, double = (
        run(planner, World(), latent=latent),
        run(planner, World(dtype=torch.double), latent=latent.double()),
    )
    assert double.value.dtype == torch.double
    # iLQR's last steps along flat directions are as long as rounding lets them be
    torch.testing.assert_close(double.mean.float(), single.mean, rtol=0, atol=1e-2)
    torch.testing.assert_close(double.value.float(), single.value, rtol=0, atol=1e-3)
