"""The environment side's records: numpy only, importing this never imports torch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldmodel.spec import EnvSpec


@dataclass(slots=True)
class Step:
    """One arrival row: the observation and what came with it.

    pixels: uint8 [C, h, w]. reward: sum over the action-repeat sub-steps that led here, 0 at a reset.
    is_first: this row opens an episode. is_last: it closes one. is_terminal: it closes one by termination
    (without is_terminal, is_last is a truncation: bootstrap through it). env_steps: control steps that led here.
    """

    pixels: NDArray[np.uint8]
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    env_steps: int


class Env(Protocol):
    """A single environment; every module in this folder with a `make(**kwargs)` returns one."""

    spec: EnvSpec

    def reset(self, seed: int) -> Step:
        """Open an episode; the same seed gives the same episode for the same actions."""

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance one decision with an action [A] in [-1, 1]."""

    def close(self) -> None:
        """Free GL contexts and files."""
