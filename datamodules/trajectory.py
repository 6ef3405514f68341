"""One recorded episode, whatever it was read from and whatever it is written to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Step
from datamodules.observation import Observation, misfit
from worldmodel.errors import UserError
from worldmodel.spec import EnvSpec


class TrajectoryInvalid(UserError, ValueError):
    """Arrays that are no episode; names the key, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode by arrival: row t holds o[t], the action a[t-1] that led to it, and the reward that came with it.

    observation: by name, images uint8 [T, C, h, w] and vectors float32 [T, d].
    action: float32 [T, A] in [-1, 1], zeros in row 0. reward: float32 [T], 0 in row 0.
    terminal: the episode ended by termination; else its end is a truncation, also where a recording just stops.
    env_steps: int32 [T] control steps that led to each row, 0 in row 0. name: where it came from, for messages.
    """

    observation: Observation
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminal: bool
    env_steps: NDArray[np.int32]
    name: str = ""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images [T, C, h, w], where there is one of each row."""
        (images,) = (rows for rows in self.observation.values() if rows.dtype == np.uint8)
        return images

    def check(self) -> None:
        """Raise TrajectoryInvalid where the arrays do not fit together or hold a value that must not be stored."""
        rows = len(self.reward)
        arrays: dict[str, tuple[NDArray[Any], type, int]] = {
            "action": (self.action, np.float32, 2),
            "reward": (self.reward, np.float32, 1),
            "env_steps": (self.env_steps, np.int32, 1),
        }
        for name, values in self.observation.items():
            arrays[name] = (values, np.uint8, 4) if values.dtype == np.uint8 else (values, np.float32, 2)
        for key, (values, dtype, ndim) in arrays.items():
            shape = (rows, *values.shape[1:])
            if values.dtype != dtype or values.shape != shape or values.ndim != ndim:
                raise TrajectoryInvalid(
                    f"{self.name} {key}: expected {np.dtype(dtype)} {ndim}-d with {rows} rows, "
                    f"got {values.dtype} {values.shape}"
                )
        if rows < 1:
            raise TrajectoryInvalid(f"{self.name}: expected 1 row or more, got none")
        if not (np.isfinite(self.reward).all() and np.isfinite(self.action).all()):
            raise TrajectoryInvalid(f"{self.name}: expected finite rewards and actions, got NaN or infinity")
        for name, values in self.observation.items():
            if values.dtype == np.float32 and not np.isfinite(values).all():
                raise TrajectoryInvalid(f"{self.name} {name}: expected finite values, got NaN or infinity")
        if np.abs(self.action).max(initial=0.0) > 1.0:
            raise TrajectoryInvalid(f"{self.name} action: expected within [-1, 1], got {np.abs(self.action).max():g}")
        if self.action[0].any() or (self.env_steps < 0).any():
            raise TrajectoryInvalid(f"{self.name}: expected a zero action in row 0 and env_steps of at least 0")

    def require(self, spec: EnvSpec) -> None:
        """Raise TrajectoryInvalid where a checked episode is of another environment than `spec`."""
        if self.action.shape[1] != spec.action_dim:
            raise TrajectoryInvalid(
                f"{self.name} action: expected {spec.action_dim} numbers in each row, got {self.action.shape[1]}"
            )
        if wrong := misfit(spec, {key: rows[0] for key, rows in self.observation.items()}):
            raise TrajectoryInvalid(f"{self.name} {wrong}")

    def rows(self) -> Iterator[tuple[Step, NDArray[np.float32]]]:
        """Every row as replay takes it."""
        last = len(self) - 1
        for t in range(len(self)):
            flags = (t == 0, t == last, t == last and self.terminal)
            observation = {name: values[t] for name, values in self.observation.items()}
            yield Step(observation, float(self.reward[t]), *flags, int(self.env_steps[t])), self.action[t]

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[Step, NDArray[np.float32]]], *, name: str = "") -> "Trajectory":
        """An episode from its rows as an environment gave them, each with the action that led to it."""
        steps = [step for step, _ in rows]
        return cls(
            observation={key: np.stack([step.observation[key] for step in steps]) for key in steps[0].observation},
            action=np.stack([action for _, action in rows]),
            reward=np.asarray([step.reward for step in steps], np.float32),
            terminal=steps[-1].is_terminal,
            env_steps=np.asarray([step.env_steps for step in steps], np.int32),
            name=name,
        )
