"""Which observations may be acted on: type, shape, range, age, order, and cameras that freeze or go blank."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.images import area_resized
from trainers.bundle.control_spec import ControlSpec
from worldmodel.errors import UserError

Rows = dict[str, NDArray[Any]]
MOST_SIDE = 8192  # pixels of a camera frame's side
MOST_LETTERS = 300  # of what somebody sent, in a message
CLOCK_S = 0.05  # that a capture may lie ahead: stamps are of another thread's or process's clock reading


class Refused(UserError, ValueError):
    """An observation that must not be acted on.

    Args:
        wrong: one word for what is wrong, with which the message begins.
        why: the rest of it.
    """

    def __init__(self, wrong: str, why: str) -> None:
        super().__init__(f"{wrong}: {why}")
        self.wrong = wrong


class ObservationGate:
    """Checks one observation after the other of an episode.

    Args:
        control: what is expected.
        vectors: mean and std [d] of every vector in the training data, by name.
    """

    def __init__(self, control: ControlSpec, vectors: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        self._control, self._vectors = control, vectors
        self.reset()

    def reset(self) -> None:
        """Begin an episode: the order of what comes is unknown again."""
        self._stamp, self._sequence = -np.inf, -1
        self._last: Rows = {}
        self._same: dict[tuple[str, ...], int] = {}  # times in a row, of each camera alone

    def check(self, observation: Any, stamp: Any, sequence: Any) -> Rows:
        """Rows as the filter takes them, images [c, h, w] and vectors [d].

        Args:
            observation: frames uint8 [height, width, c] of any size and vectors by name, or the only one alone.
            stamp: seconds of time.monotonic() at the capture; None for now.
            sequence: the camera's own number of the frame; None where it has none.

        Raises:
            Refused: says why the observation counts as missing.
        """
        if observation is None:
            raise nothing_came()
        self._check_order(stamp, sequence)
        env = self._control.env
        names = [*env.images, *env.vectors]
        if not isinstance(observation, Mapping):
            observation = {names[0]: observation} if len(names) == 1 else {}
        if set(observation) != set(names):
            raise Refused(
                "names", f"expected {', '.join(names)}, got {', '.join(map(str, observation))[:MOST_LETTERS]}"
            )
        rows: Rows = {name: _image(name, observation[name], shape) for name, shape in env.images.items()}
        rows |= {name: self._vector(name, observation[name], size) for name, size in env.vectors.items()}
        self._check_frozen(rows)
        return rows

    def _check_order(self, stamp: Any, sequence: Any) -> None:
        if sequence is not None:
            if not isinstance(sequence, int | np.integer):
                raise Refused("order", f"expected a whole number of the frame, got {sequence!r}")
            if sequence <= self._sequence:
                raise Refused("order", f"expected a frame after number {self._sequence}, got {sequence}")
            self._sequence = int(sequence)
        if stamp is None:
            return
        if refused := refused_age(stamp, self._control.limits.max_age_s):
            raise refused
        if stamp <= self._stamp:
            raise Refused("order", f"expected a stamp after {self._stamp:.6f}, got {stamp:.6f}")
        self._stamp = stamp

    def _vector(self, name: str, values: Any, size: int) -> NDArray[np.float32]:
        row = _array(name, values)
        if row.shape != (size,) or row.dtype.kind not in "fiu":
            raise Refused("shape", f"{name}: expected {size} numbers, got {row.dtype} {list(row.shape)}")
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
            row = row.astype(np.float32)
        if not np.isfinite(row).all():
            raise Refused("range", f"{name}: expected finite numbers")
        if name in self._vectors:
            mean, std = self._vectors[name]
            limit = self._control.limits.vector_stds
            if (np.abs(row - mean) > limit * np.maximum(std, np.abs(mean) * 1e-3)).any():
                raise Refused("range", f"{name}: expected numbers within {limit} stds of the training data's mean")
        return row

    def _check_frozen(self, rows: Rows) -> None:
        limit = self._control.limits.frozen
        if not limit:
            return
        # a camera that hangs is not excused by joints, or by another camera, that go on
        watched: list[tuple[str, ...]] = [(name,) for name in self._control.env.images] or [tuple(rows)]
        for group in watched:
            same = bool(self._last) and all(np.array_equal(rows[name], self._last[name]) for name in group)
            self._same[group] = self._same.get(group, 0) + 1 if same else 0
        self._last = {name: part.copy() for name, part in rows.items()}  # a driver may draw its next frame into these
        group = max(watched, key=lambda group: self._same[group])
        if self._same[group] >= limit:
            whose = "" if len(rows) == 1 else f"{', '.join(group)}: "
            raise Refused("frozen", f"{whose}the same observation {self._same[group] + 1} times")


def nothing_came() -> Refused:
    """What is wrong where there is no observation."""
    return Refused("none", "no observation came")


def refused_age(stamp: Any, limit_s: float) -> Refused | None:
    """What is wrong with a frame whose capture is too long ago, or in the future; None where it is neither."""
    if not isinstance(stamp, int | float | np.number):
        return Refused("age", f"expected a stamp in seconds of time.monotonic(), got {stamp!r}")
    age = time.monotonic() - stamp
    if -CLOCK_S <= age <= limit_s:  # NaN fails too
        return None
    hint = ": stamps are seconds of time.monotonic()" if not age >= -CLOCK_S else ""
    return Refused("age", f"expected 0 to {limit_s} s, got {age:.3f}{hint}")


def _image(name: str, frame: Any, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    channels, height, width = shape
    image = _array(name, frame)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
        got = f"{image.dtype} {list(image.shape)}"
        raise Refused("shape", f"{name}: expected uint8 [height, width, {channels}], got {got}")
    if not 1 <= min(image.shape[:2]) <= max(image.shape[:2]) <= MOST_SIDE:
        raise Refused("shape", f"{name}: expected sides of 1 to {MOST_SIDE}, got {list(image.shape[:2])}")
    resized = area_resized(image.transpose(2, 0, 1), height, width)
    if (resized == resized[:, :1, :1]).all():
        raise Refused("blank", f"{name}: one constant colour")
    return resized


def _array(name: str, values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # rows of several lengths
        raise Refused("shape", f"{name}: expected an array, got a {type(values).__name__} ({error})") from error
