"""Turns the arrays of a recorded episode, in whatever layout and alignment they were stored, into a Trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.protocol import FormatError
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

ALIGNMENTS = ("arrival", "departure")
# what rounding to float32 and back can add to a bound
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Convention:
    """How a data set stores actions.

    alignment: "arrival": action[t] and reward[t] led to and came with image[t]; "departure": action[t] was taken at
    image[t], and reward[t] came of it. low, high: bounds of each action dimension, scaled to [-1, 1]; None where
    actions are in [-1, 1] as they are. action_repeat: control steps per row.
    """

    alignment: str
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    action_repeat: int = 1

    @classmethod
    def parse(
        cls, *, alignment: str, low: str = "", high: str = "", action_repeat: int = 0, stored: EnvSpec | None = None
    ) -> "Convention":
        """From a URI's options, bounds as "-2" or "-2,-1,0", and from what a writer left there; raises FormatError."""
        action_repeat = action_repeat or (stored.action_repeat if stored else 1)
        if alignment not in ALIGNMENTS:
            raise FormatError(f"alignment: expected {' or '.join(ALIGNMENTS)}, got {alignment!r}")
        if action_repeat < 1:
            raise FormatError(f"action_repeat: expected 1 or more, got {action_repeat}")
        bounds = [_bound(name, text) for name, text in (("low", low), ("high", high))]
        if (bounds[0] is None) != (bounds[1] is None):
            raise FormatError(f"low and high: expected both or neither, got {low=} {high=}")
        if bounds[0] is not None and not (bounds[0] < bounds[1]).all():
            raise FormatError(f"low and high: expected low < high, got {low=} {high=}")
        return cls(alignment, *bounds, action_repeat)


def _bound(name: str, text: str) -> NDArray[np.float64] | None:
    if not text:
        return None
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError as error:
        raise FormatError(f"{name}: expected numbers such as -2 or -2,-1, got {text!r}") from error
    if not np.isfinite(values).all():
        raise FormatError(f"{name}: expected finite numbers, got {text!r}")
    return values


def channels_first(name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Frames [T, h, w, C] or [T, C, h, w] as contiguous uint8 [T, C, h, w]; the channels are the shortest axis."""
    if values.dtype != np.uint8 or values.ndim != 4 or min(values.shape[1:]) < 1:
        raise FormatError(f"{name}: expected uint8 [T, h, w, C] or [T, C, h, w], got {values.dtype} {values.shape}")
    _, first, second, last = values.shape
    if last < min(first, second):
        values = values.transpose(0, 3, 1, 2)
    elif not first < min(second, last):
        raise FormatError(f"{name}: expected fewer channels than rows and columns, got shape {values.shape}")
    return np.ascontiguousarray(values)


def side_by_side(name: str, films: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The films of several cameras as channels of one, [T, C1 + C2 + ..., h, w]; a single one as it is."""
    if len(films) == 1:
        return films[0]
    frames = [channels_first(name, film) for film in films]
    shapes = {(len(film), *film.shape[2:]) for film in frames}
    if len(shapes) > 1:
        raise FormatError(f"{name}: expected cameras of one length and size, got (T, h, w) {sorted(shapes)}")
    return np.concatenate(frames, 1)


def column(name: str, values: NDArray[Any], rows: int) -> NDArray[Any]:
    """Numbers [rows] or [rows, 1] as [rows]."""
    if values.dtype.kind not in "biuf" or values.shape not in ((rows,), (rows, 1)):
        raise FormatError(f"{name}: expected {rows} numbers, got {values.dtype} {values.shape}")
    return values.reshape(rows)


def episodes(name: str, is_first: NDArray[Any]) -> list[slice]:
    """The runs of rows that begin at row 0 and wherever is_first [T] is set."""
    if len(is_first) == 0:
        raise FormatError(f"{name}: expected 1 row or more, got none")
    starts = np.flatnonzero(is_first)
    if len(starts) == 0 or starts[0] != 0:
        starts = np.concatenate([[0], starts])
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(is_first)], strict=True)]


def flags(name: str, arrays: dict[str, NDArray[Any]], rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """is_first and is_terminal [rows] from whichever of the keys in use is there."""
    first = terminal = np.zeros(rows, np.bool_)
    if "is_first" in arrays:
        first = column(f"{name} is_first", arrays["is_first"], rows).astype(np.bool_)
    elif "step_type" in arrays:
        first = column(f"{name} step_type", arrays["step_type"], rows) == 0
    if "is_terminal" in arrays:
        terminal = column(f"{name} is_terminal", arrays["is_terminal"], rows).astype(np.bool_)
    elif "discount" in arrays:
        terminal = column(f"{name} discount", arrays["discount"], rows) == 0
        terminal &= ~first  # some recorders store 0 for the discount that a reset does not have
    return first, terminal


def ends_by_termination(name: str, is_terminal: NDArray[Any]) -> bool:
    """Whether the last row of an episode is terminal; raises FormatError where another one is."""
    early = np.flatnonzero(is_terminal[:-1])
    if len(early):
        raise FormatError(
            f"{name}: expected termination in the last of {len(is_terminal)} rows, got it in row {early[0]}"
        )
    return bool(is_terminal[-1])


def assemble(
    name: str,
    *,
    pixels: NDArray[Any],
    action: NDArray[Any],
    reward: NDArray[Any],
    terminal: bool,
    convention: Convention,
    env_steps: NDArray[Any] | None = None,
) -> Trajectory:
    """The episode by arrival, checked; raises FormatError, TrajectoryInvalid.

    Under "departure" the last of as many actions as frames led to no recorded frame: it is left out with its reward,
    and so is the termination, which nothing shows. With one more frame than actions nothing is left out.
    env_steps: by arrival, for every row.
    """
    frames = channels_first(f"{name} pixels", pixels)
    rows, recorded = len(frames), len(action)
    departs = convention.alignment == "departure"
    if recorded != rows and not (departs and recorded == rows - 1):
        raise FormatError(f"{name} action: expected {rows} rows as of pixels, got {recorded}")
    actions = _scaled(f"{name} action", _rows_of_actions(name, action), convention, skip_first=not departs)
    rewards = column(f"{name} reward", reward, recorded).astype(np.float32)
    if departs:
        terminal = terminal and recorded == rows - 1
        actions = np.concatenate([np.zeros_like(actions[:1], shape=(1, actions.shape[1])), actions[: rows - 1]])
        rewards = np.concatenate([np.zeros(1, np.float32), rewards[: rows - 1]])
    # no action led to the first row, and what is stored there (a copy, NaN) means nothing
    actions[:1], rewards[:1] = 0.0, 0.0
    if env_steps is None:
        steps = np.full(rows, convention.action_repeat, np.int32)
        steps[:1] = 0
    else:
        steps = column(f"{name} env_steps", env_steps, rows).astype(np.int32)
    trajectory = Trajectory(frames, actions, rewards, terminal, steps, name)
    trajectory.check()
    return trajectory


def _rows_of_actions(name: str, action: NDArray[Any]) -> NDArray[Any]:
    if action.dtype.kind not in "biuf" or action.ndim not in (1, 2) or (action.ndim == 1 and action.dtype.kind != "f"):
        raise FormatError(f"{name} action: expected numbers [T, A], got {action.dtype} {action.shape}")
    return action if action.ndim == 2 else action[:, None]


def _scaled(name: str, action: NDArray[Any], convention: Convention, *, skip_first: bool) -> NDArray[np.float32]:
    """A new float32 array in [-1, 1]; values that are already there pass unchanged."""
    low, high = convention.low, convention.high
    if low is not None and high is not None:
        if not {len(low), len(high)} <= {1, action.shape[1]}:
            raise FormatError(f"{name}: expected {action.shape[1]} bounds or 1, got {len(low)} low, {len(high)} high")
        action = (action - low) / (high - low) * 2.0 - 1.0
    meant = action[1:] if skip_first else action
    largest = float(np.abs(meant).max(initial=0.0))
    if largest > 1.0 + _ROUNDING:
        where = "outside their bounds" if low is not None else "say what they are: ?low=..&high=.."
        raise FormatError(f"{name}: expected within [-1, 1], got {meant.min():g} to {meant.max():g}: {where}")
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def require_spec(spec: EnvSpec, trajectory: Trajectory) -> None:
    """Raise FormatError for an episode of another shape than the data set's first."""
    expected = (spec.pixels, spec.action_dim)
    got = (trajectory.pixels.shape[1:], trajectory.action.shape[1])
    if expected != got:
        raise FormatError(f"{trajectory.name}: expected pixels and actions of {expected}, got {got}")
