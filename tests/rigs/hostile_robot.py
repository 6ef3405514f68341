"""Everything around a controller that can go wrong, by chance: cameras, filters, planners and policies that lie.

The agent is a fake one whose parts are a few operations each, so that calls are cheap.
"""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.rigs.tiny_bundle import SPEC
from trainers.bundle.control_spec import ControlSpec, Limits
from trainers.deployment.planning import Planned, Request

LATENT, HORIZON = 4, 3
SHARE = 0.3  # of the calls in which a part lies
NUMBERS = (math.nan, math.inf, -math.inf, 1e38, -1e38, 1e-40, 0.0, 1.0)


class Hostile:
    """An object that raises whatever is done with it."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")

    def __len__(self) -> int:
        raise MemoryError("no length")

    def __iter__(self) -> Any:
        raise OSError("no items")

    def __str__(self) -> str:
        raise ValueError("no text")

    def __eq__(self, other: object) -> bool:
        raise KeyError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class Liar:
    """Spoils tensors of one call in a few."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, truth: Tensor) -> Tensor:
        if self.rng.random() > SHARE:
            return truth
        kind = int(self.rng.integers(4))
        if kind == 0:
            raise RuntimeError("a model's fault")
        if kind == 1:
            return truth.flatten()[:-1]
        spoiled = truth.clone()
        number = float(self.rng.choice(NUMBERS))
        if kind == 2:
            return spoiled.fill_(number)
        spoiled.view(-1)[int(self.rng.integers(spoiled.numel()))] = number
        return spoiled


class Agent:
    """What a controller needs of an agent, and half of it lies."""

    def __init__(self, lie: Liar, *, discrete: bool) -> None:
        self.action_dim = 2
        self.norm = SimpleNamespace(names=["pixels", "joints"], parts=[None, SimpleNamespace(**_STATISTICS)])
        self.norm = _Norm(self.norm.names, self.norm.parts)
        self.encoder, self.dynamics = _Encoder(lie), _Dynamics(lie)
        self.planner = SimpleNamespace(horizon=HORIZON, iterations=1)
        self.actor = SimpleNamespace(mode=lambda latent: lie(torch.tanh(latent[:, :2])))

    def initial_carry(self, batch: int) -> Any:
        return SimpleNamespace(belief=torch.zeros(batch, LATENT), plan=torch.full((batch, HORIZON, 2), torch.nan))

    def simulator(self) -> None:
        return None


_STATISTICS = {"measured": True, "mean": torch.zeros(2), "std": torch.ones(2)}


class _Norm:
    def __init__(self, names: list[str], parts: list[Any]) -> None:
        self.names, self.parts = names, parts

    def __call__(self, observation: dict[str, Tensor]) -> Tensor:
        return observation["joints"]


class _Encoder:
    embed_dim = 2

    def __init__(self, lie: Liar) -> None:
        self._lie = lie

    def __call__(self, joints: Tensor) -> Tensor:
        return self._lie(joints)


class _Dynamics:
    latent_dim = LATENT

    def __init__(self, lie: Liar) -> None:
        self._lie = lie

    def observe(self, embed: Tensor, action: Tensor, is_first: Tensor, carry: Tensor, *, sample: bool) -> Any:
        latent = self._lie(torch.cat([embed[:, 0], action[:, 0]], -1) + 0.5 * carry)
        return SimpleNamespace(latent=latent[:, None], carry=latent)

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return self._lie(0.9 * latent + 0.1 * torch.cat([action, action], -1))


class Planner:
    """Plans that are right, absent, nonsense, or an error."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def ask(self, request: Request, *, until: float) -> Any:
        kind, rng = int(self._rng.integers(12)), self._rng
        if kind == 0:
            raise RuntimeError("a planner's fault")
        if kind == 1:
            return None
        if kind == 2:
            return Planned(rng.standard_normal((2, 5)).astype(np.float32), 1.0)
        if kind == 3:
            return Planned(Hostile(), math.nan)  # type: ignore[arg-type]
        mean = (rng.standard_normal((HORIZON, 2)) * 10.0 ** rng.integers(-2, 20)).astype(np.float32)
        if kind in (4, 5, 6):
            mean[rng.random(mean.shape) < 0.5] = rng.choice(NUMBERS)
        return Planned(mean, float(rng.choice(NUMBERS)))

    def close(self) -> None:
        """Nothing."""


def robots() -> dict[str, ControlSpec]:
    """Bounds of every kind."""
    spec = replace(SPEC, vectors={"joints": 2})
    limits = Limits(frozen=3, faults=3, plan_age=2, missing=2)
    plain: dict[str, Any] = {"hz": 20.0, "limits": limits}
    far = replace(spec, action_low=(-3e38, 1e-37), action_high=(3e38, 1e-35))
    narrow = replace(spec, action_low=(0.0, 0.1), action_high=(0.0, 0.1 + 1e-9))
    unknown = replace(spec, action_low=None, action_high=None)
    return {
        "asymmetric": ControlSpec(env=spec, **plain),
        "slow": ControlSpec(env=spec, max_change=(0.01, 0.5), safe_action=(0.5, 5.3), **plain),
        "delayed": ControlSpec(env=unknown, action_latency_s=0.1, safe_action=(0.0, 0.0), **plain),
        "huge and tiny": ControlSpec(env=far, **plain),
        "zero width": ControlSpec(env=narrow, **plain),
        "discrete": ControlSpec(env=replace(unknown, discrete=True), safe_action=(1.0,), **plain),
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """Arguments of one call."""

    observation: Any
    stamp: Any
    sequence: Any


class Camera:
    """Observations, half of them as they should be."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._frames = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(4)]
        self._large = rng.integers(0, 256, (48, 64, 3), np.uint8)
        self._sequence = 0

    def take(self, now: float) -> Seen:
        rng, kind = self._rng, int(self._rng.integers(40))
        self._sequence += 1
        good = {"pixels": self._frames[kind % 4], "joints": rng.standard_normal(2).astype(np.float32)}
        stamp: Any = (None, now, now - 0.01)[kind % 3]
        sequence: Any = (None, self._sequence)[kind % 2]
        wrong: list[Any] = [
            *(None, {}, [], "frame", Hostile(), 3.5, b"\0" * 768, {"pixels": Hostile(), "joints": Hostile()}),
            {**good, "joints": np.full(2, rng.choice(NUMBERS), np.float32)},
            {**good, "joints": np.array(["a", "b"])},
            {**good, "joints": np.array([None, 1], object)},
            {**good, "pixels": np.zeros((16, 16, 3), np.uint8)},
            {**good, "pixels": np.zeros((0, 0, 3), np.uint8)},
            {**good, "pixels": self._frames[0].astype(np.float32)},
            {**good, "pixels": self._frames[0].transpose(2, 0, 1)},
            {"pixels": self._frames[0]},
            {**good, Hostile: 1},
        ]
        if kind < len(wrong):
            return Seen(wrong[kind], stamp, sequence)
        if kind == 37:
            return Seen(good, (math.nan, math.inf, -1e300, "now", now + 1e9)[self._sequence % 5], sequence)
        if kind == 38:
            return Seen(good, stamp, (-1, "one", 1.5, 2**80, Hostile())[self._sequence % 5])
        if kind == 39:
            return Seen({**good, "pixels": self._large}, stamp, sequence)
        return Seen(good, stamp, sequence)
