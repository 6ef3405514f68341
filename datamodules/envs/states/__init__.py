"""Environments whose state is observed: a vector of physical quantities, and nothing to draw.

They hold no GL context that could hang or clash, so they live in the process that plays them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldmodel.spec import StateSpec


@dataclass(slots=True)
class StateStep:
    """One arrival row: the state [D], and what came with it; `is_last` and `is_terminal` as in an `envs.Step`."""

    state: NDArray[np.float32]
    reward: float
    is_last: bool
    is_terminal: bool
    env_steps: int


class StateEnv(Protocol):
    """A single environment; every module in this folder with a `make(**kwargs)` returns one."""

    spec: StateSpec

    def reset(self, seed: int) -> StateStep:
        """Open an episode; the same seed gives the same episode for the same actions."""

    def step(self, action: NDArray[np.float32]) -> StateStep:
        """Advance one decision with an action [A] in [-1, 1]."""

    def close(self) -> None:
        """Free the physics."""
