"""The one place where the arrays of a recorded episode become a Trajectory, whatever layout and pairing they have.

A format reads arrays and hands them over by the names of FIELDS; shapes, types, ranges, pairing and the notes on what
is not taken over as it lies there are the same for every format.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.convention import Convention
from datamodules.formats.fields import Piece, column
from datamodules.formats.observed import with_bounds
from datamodules.formats.protocol import FormatError, Notes
from datamodules.observation import Observation, Shapes, shapes_of
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

# what rounding to float32 and back can add to a bound
_ROUNDING = 1e-5
LOST = (
    "{episodes:.0f} episodes end with an action whose effect no frame shows: it is left out with its reward (in sum "
    "{reward:g}), and so are {terminations:.0f} terminations; keep them with last=repeat, which shows the last frame "
    "once more, or record one more frame than actions"
)
FIRST_REWARD = (
    "{episodes:.0f} episodes hold a reward in their first row (in sum {reward:g}), to which no action led: it is left "
    "out; rewards stored with the action that earned them are read by alignment=departure"
)
NO_REWARD = "{episodes:.0f} episodes hold no rewards (keys: {detail}): they are read as 0"
FLOATS = (
    "{detail} are read as numbers (in {episodes:.0f} episodes); where they are frames, image_scale=255 reads them so"
)
UNREAD = "not read: {detail} (in {episodes:.0f} episodes)"
DONE = (
    "{detail} is read as termination ({terminations:.0f} of {episodes:.0f} episodes); where it marks mere ends, "
    "say terminal_key=none"
)
BEGINS_INSIDE = "{episodes:.0f} episodes begin without is_first: their earlier rows are not there"
ENDS_INSIDE = "{episodes:.0f} episodes end without is_last: they are read as truncated there"


def channels_first(name: str, values: NDArray[Any], *, scale: float = 0.0) -> NDArray[np.uint8]:
    """Frames as contiguous uint8 [T, C, h, w].

    Args:
        name: for messages.
        values: [T, h, w, C] or [T, C, h, w], the channels being the shortest axis; uint8, or floats with a `scale`.
        scale: what floats are multiplied with to be in 0..255.

    Raises:
        FormatError: for any other shape, type or range.
    """
    if values.ndim == 4 and values.dtype.kind == "f" and scale:
        scaled = np.rint(values * scale)
        if not ((scaled >= 0) & (scaled <= 255)).all():
            raise FormatError(f"{name}: expected 0..255 after image_scale, got {scaled.min():g} to {scaled.max():g}")
        values = scaled.astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim != 4 or min(values.shape[1:]) < 1:
        remedy = "; floats become uint8 with image_scale=255 where they are in 0..1" if values.dtype.kind == "f" else ""
        if values.ndim == 2 and values.dtype.kind in "biuf":
            remedy = "; numbers are read by name, as a vector: observe= and the name of their array"
        raise FormatError(
            f"{name}: expected uint8 [T, h, w, C] or [T, C, h, w], got {values.dtype} {values.shape}{remedy}"
        )
    _, first, second, last = values.shape
    if last < min(first, second):
        values = values.transpose(0, 3, 1, 2)
    elif not first < min(second, last):
        raise FormatError(f"{name}: expected fewer channels than rows and columns, got shape {values.shape}")
    return np.ascontiguousarray(values)


class Assembler:
    """Makes the trajectories of one data set.

    Args:
        convention: how its rows are stored.

    notes: what was not taken over as it lies there since they were cleared.
    """

    def __init__(self, convention: Convention) -> None:
        self.convention, self.notes = convention, Notes()
        self._rewarded = False

    def trajectory(self, name: str, fields: Mapping[str, Any], *, unread: Iterable[str] = ()) -> Trajectory:
        """The episode by arrival, checked.

        Under "departure" the last of as many actions as frames led to no recorded frame: see `last` of RowOptions. With
        one more frame than actions nothing is left out.

        Args:
            name: of the episode, for messages.
            fields: "observation", arrays [T, ...] by name, or "pixels" [T, ...], one or several cameras side by side;
                "action" [T or T - 1, A]; where stored, "reward" and "is_terminal" [T or T - 1], "env_steps" [T].
            unread: the names of arrays of this episode that nobody reads.

        Raises:
            FormatError, TrajectoryInvalid: for arrays that are no episode; names the key.
        """
        convention = self.convention
        observation = self._observation(name, fields)
        rows = len(next(iter(observation.values())))
        action, count = fields["action"], len(fields["action"])
        lost = convention.departs and convention.actions == "departure" and count == rows
        if lost and convention.repeat_last:
            observation = {key: np.concatenate([seen, seen[-1:]]) for key, seen in observation.items()}
            rows, lost = rows + 1, False
        led = self._led(f"{name} action", action, rows, convention.actions)
        numbers = self._numbers(f"{name} action", led)
        actions = np.zeros((rows, numbers.shape[1]), np.float32)
        actions[1:] = numbers
        rewards, last_reward = self._rewards(name, fields, rows)
        terminal, last_terminal = self._terminal(name, fields.get("is_terminal"), rows)
        if lost and (last_reward or last_terminal or np.any(action[-1])):
            self.notes.add(LOST, reward=last_reward, terminations=last_terminal)
        if names := ", ".join(sorted(unread)):
            self.notes.add(UNREAD, detail=names)
        env_steps = self._env_steps(name, fields, rows)
        trajectory = Trajectory(observation, actions, rewards, terminal, env_steps, name)
        trajectory.check()
        self._rewarded = self._rewarded or "reward" in fields
        return trajectory

    def note_ends(self, *, begins: bool, ends: bool) -> None:
        """Note where an episode's first or last rows are not there."""
        if not begins:
            self.notes.add(BEGINS_INSIDE)
        if not ends:
            self.notes.add(ENDS_INSIDE)

    def note_piece(self, piece: Piece, keys: Mapping[str, str], terminal: NDArray[np.bool_]) -> None:
        """Note what is missing of an episode of rows [T], and terminations that only an array of ends tells.

        keys: what its fields are stored as.
        """
        self.note_ends(begins=piece.begins, ends=piece.ends)
        if "done" in keys and not {"is_terminal", "discount"} & keys.keys():
            self.notes.add(DONE, detail=keys["done"], terminations=bool(terminal.any()))

    def _observation(self, name: str, fields: Mapping[str, Any]) -> Observation:
        if "observation" not in fields:
            return {"pixels": self._frames(name, fields["pixels"])}
        seen = {key: self._part(f"{name} {key}", values) for key, values in fields["observation"].items()}
        if len({len(values) for values in seen.values()}) != 1:
            raise FormatError(f"{name}: expected as many rows of each, got { ({k: len(v) for k, v in seen.items()}) }")
        return seen

    def _part(self, label: str, values: NDArray[Any]) -> NDArray[Any]:
        """Images [T, C, h, w], or the numbers of each row as a vector [T, d]."""
        if values.ndim == 4 and (values.dtype == np.uint8 or self.convention.image_scale):
            return channels_first(label, values, scale=self.convention.image_scale)
        if values.dtype.kind not in "biuf" or values.ndim < 1 or math.prod(values.shape[1:]) < 1:
            raise FormatError(f"{label}: expected numbers [T, ...], got {values.dtype} {values.shape}")
        if values.dtype.kind == "f" and _like_frames(values.shape):
            self.notes.add(FLOATS, detail=f"{label.rpartition(' ')[2]} {values.dtype} {values.shape[1:]}")
        return values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float32)

    def _frames(self, name: str, pixels: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
        """[T, C1 + C2 + ..., h, w], cameras side by side."""
        films = [pixels] if isinstance(pixels, np.ndarray) else pixels
        frames = [channels_first(f"{name} pixels", film, scale=self.convention.image_scale) for film in films]
        shapes = {(len(film), *film.shape[2:]) for film in frames}
        if len(shapes) > 1:
            raise FormatError(f"{name}: expected cameras of one length and size, got (T, h, w) {sorted(shapes)}")
        return frames[0] if len(frames) == 1 else np.concatenate(frames, 1)

    def _led(self, name: str, values: NDArray[Any], rows: int, alignment: str) -> NDArray[Any]:
        """Of values by row, those that led to rows 1, 2, ...: [rows - 1, ...]."""
        count = len(values) if values.ndim else 0
        if count != rows and not (alignment == "departure" and count == rows - 1):
            raise FormatError(f"{name}: expected {rows} rows as of pixels, got {count}")
        return values[: rows - 1] if alignment == "departure" else values[1:]

    def _numbers(self, name: str, led: NDArray[Any]) -> NDArray[Any]:
        """Actions [n, A] in [-1, 1]; values that are already there pass unchanged."""
        convention = self.convention
        if convention.discrete and (led.ndim == 1 or led.shape[1] == 1):
            return _one_hot(name, led.reshape(-1), convention.discrete, convention.first_action)
        if led.dtype.kind not in "biuf" or led.ndim not in (1, 2) or (led.ndim == 1 and led.dtype.kind != "f"):
            remedy = ""
            if led.dtype.kind in "biu" and led.ndim == 1:
                remedy = f"; numbers of actions become one-hot with discrete={int(led.max(initial=0)) + 1} or as many"
            raise FormatError(f"{name}: expected numbers [T, A], got {led.dtype} {led.shape}{remedy}")
        action, low, high = led if led.ndim == 2 else led[:, None], convention.low, convention.high
        if not np.isfinite(action).all():
            raise FormatError(f"{name}: expected finite numbers, got NaN or infinity")
        if low is not None and high is not None:
            if not {len(low), len(high)} <= {1, action.shape[1]}:
                raise FormatError(f"{name}: expected {action.shape[1]} bounds or 1, got {len(low)} low, {len(high)}")
            action = (action - low) / (high - low) * 2.0 - 1.0
        if not np.abs(action).max(initial=0.0) <= 1.0 + _ROUNDING:
            where = "outside their bounds" if low is not None else "say what they are: ?low=..&high=.."
            if low is None and led.dtype.kind in "biu" and action.shape[1] == 1 and action.min() >= 0:
                where += f"; numbers of actions become one-hot with discrete={int(action.max()) + 1} or as many"
            raise FormatError(f"{name}: expected within [-1, 1], got {action.min():g} to {action.max():g}: {where}")
        return np.clip(action, -1.0, 1.0)

    def _rewards(self, name: str, fields: Mapping[str, Any], rows: int) -> tuple[NDArray[np.float32], float]:
        """By arrival [rows], and what is left out at the end."""
        rewards = np.zeros(rows, np.float32)
        if "reward" not in fields:
            if self._rewarded:
                there = ", ".join(fields)
                raise FormatError(f"{name}: expected key 'reward', got {there}: expected rewards as in other episodes")
            self.notes.add(NO_REWARD, detail=", ".join(sorted(fields)))
            return rewards, 0.0
        label, stored = f"{name} reward", fields["reward"]
        led = self._led(label, stored, rows, self.convention.alignment)
        # what no action led to is not read: a recorder may have put NaN there
        stored = column(label, stored, len(stored), finite=False)
        rewards[1:] = column(label, led, len(led)).reshape(-1)
        left_out = float(np.nan_to_num(stored[rows - 1 :].sum() if self.convention.departs else stored[0]))
        if left_out and not self.convention.departs:
            self.notes.add(FIRST_REWARD, reward=left_out)
        return rewards, left_out if self.convention.departs else 0.0

    def _terminal(self, name: str, is_terminal: NDArray[Any] | None, rows: int) -> tuple[bool, bool]:
        """Whether the episode ended by termination, and whether a termination is left out at its end."""
        if is_terminal is None:
            return False, False
        label = f"{name} is_terminal"
        self._led(label, is_terminal, rows, self.convention.alignment)
        flags = column(label, is_terminal, len(is_terminal)) != 0
        ends = flags[: rows - self.convention.departs]
        if (early := np.flatnonzero(ends[:-1])).size:
            raise FormatError(
                f"{label}: expected termination in the last of {len(ends)} rows, got it in row {early[0]}"
            )
        terminal = bool(ends[-1:].any())
        return terminal, bool(flags[len(ends) :].any()) and not terminal

    def _env_steps(self, name: str, fields: Mapping[str, Any], rows: int) -> NDArray[np.int32]:
        steps = np.full(rows, self.convention.action_repeat, np.int32)
        steps[:1] = 0
        if fields.get("env_steps") is not None:
            stored = column(f"{name} env_steps", fields["env_steps"], len(fields["env_steps"]))
            if len(stored) not in (rows, rows - self.convention.repeat_last):
                raise FormatError(f"{name} env_steps: expected {rows} numbers, got {len(stored)}")
            if not ((stored >= 0) & (stored < 1 << 31)).all():
                raise FormatError(f"{name} env_steps: expected 0 or more, got {stored.min():g} to {stored.max():g}")
            steps[: len(stored)] = stored
        return steps

    def spec_of(self, first: Trajectory, *, task: str, rows: int) -> EnvSpec:
        """As `spec`, of a data set whose first readable episode this is."""
        return self.spec(shapes_of(first.observation), first.action.shape[1], task=task, rows=rows)

    def spec(self, shapes: Shapes, action_dim: int, *, task: str, rows: int) -> EnvSpec:
        """What a data set is whose writer left no spec: what its rows have, of which an episode has `rows` at most."""
        (images, vectors), repeat, discrete = shapes, self.convention.action_repeat, self.convention.discrete > 0
        steps = max(1, rows - 1) * repeat
        spec = EnvSpec(task, images, action_dim, repeat, steps, discrete=discrete, vectors=vectors)
        return with_bounds(spec, self.convention.low, self.convention.high)


def _like_frames(shape: tuple[int, ...]) -> bool:
    """Whether arrays [T, ...] have the sides and channels of pictures."""
    sides = sorted(shape[1:])
    return len(shape) == 4 and sides[0] <= 4 and sides[1] >= 16 and sides[0] in (shape[1], shape[3])


def _one_hot(name: str, chosen: NDArray[Any], count: int, first: int) -> NDArray[np.float32]:
    if chosen.dtype.kind not in "biu":
        raise FormatError(f"{name}: expected integers [T], got {chosen.dtype} {chosen.shape}")
    index = chosen.astype(np.int64) - first
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise FormatError(f"{name}: expected {count} actions, got {index.min()}..{index.max()}")
    return np.eye(count, dtype=np.float32)[index]
