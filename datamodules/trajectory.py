"""One recorded episode, whatever it was read from and whatever it is written to."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Step


class TrajectoryInvalid(ValueError):
    """Arrays that are no episode; names the key, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode by arrival: row t holds o[t], the action a[t-1] that led to it, and the reward that came with it.

    pixels: uint8 [T, C, h, w]. action: float32 [T, A] in [-1, 1], zeros in row 0. reward: float32 [T], 0 in row 0.
    terminal: the episode ended by termination; else its end is a truncation, also where a recording just stops.
    env_steps: int32 [T] control steps that led to each row, 0 in row 0. name: where it came from, for messages.
    """

    pixels: NDArray[np.uint8]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminal: bool
    env_steps: NDArray[np.int32]
    name: str = ""

    def __len__(self) -> int:
        return len(self.reward)

    def check(self) -> None:
        """Raise TrajectoryInvalid where the arrays do not fit together or hold a value that must not be stored."""
        rows = len(self.reward)
        expected = {
            "pixels": (np.uint8, (rows, *self.pixels.shape[1:]), 4),
            "action": (np.float32, (rows, *self.action.shape[1:]), 2),
            "reward": (np.float32, (rows,), 1),
            "env_steps": (np.int32, (rows,), 1),
        }
        for key, (dtype, shape, ndim) in expected.items():
            values = getattr(self, key)
            if values.dtype != dtype or values.shape != shape or values.ndim != ndim:
                raise TrajectoryInvalid(
                    f"{self.name} {key}: expected {np.dtype(dtype)} {ndim}-d with {rows} rows, "
                    f"got {values.dtype} {values.shape}"
                )
        if rows < 1:
            raise TrajectoryInvalid(f"{self.name}: expected 1 row or more, got none")
        if not (np.isfinite(self.reward).all() and np.isfinite(self.action).all()):
            raise TrajectoryInvalid(f"{self.name}: expected finite rewards and actions, got NaN or infinity")
        if np.abs(self.action).max(initial=0.0) > 1.0:
            raise TrajectoryInvalid(f"{self.name} action: expected within [-1, 1], got {np.abs(self.action).max():g}")
        if self.action[0].any() or (self.env_steps < 0).any():
            raise TrajectoryInvalid(f"{self.name}: expected a zero action in row 0 and env_steps of at least 0")

    def rows(self) -> Iterator[tuple[Step, NDArray[np.float32]]]:
        """Every row as replay takes it."""
        last = len(self) - 1
        for t in range(len(self)):
            flags = (t == 0, t == last, t == last and self.terminal)
            yield Step(self.pixels[t], float(self.reward[t]), *flags, int(self.env_steps[t])), self.action[t]
