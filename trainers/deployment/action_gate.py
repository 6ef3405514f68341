"""The last check of every action: finite, in the robot's units, in bounds after the cast, no faster than allowed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.bundle.control_spec import ControlSpec

Action = NDArray[Any]


class ActionGate:
    """Actions in [-1, 1] to the robot's units; remembers the last one."""

    def __init__(self, control: ControlSpec) -> None:
        self._discrete, self._size = control.env.discrete, control.env.action_dim
        low, high = (np.asarray(bound, np.float64) for bound in control.bounds)
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self.low, self.high = _inward(low, high)
        self._change = None if control.max_change is None else np.asarray(control.max_change, np.float64)
        self._safe = None if control.safe_action is None else np.asarray(control.safe_action, np.float64)
        self._last: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Begin an episode: where the robot is, is not known."""
        self._last = None

    def admit(self, chosen: NDArray[np.float32]) -> tuple[Action, NDArray[np.float32], bool] | None:
        """What the robot may do of what was chosen.

        Args:
            chosen: [A], meant to be in [-1, 1].

        Returns:
            The action in the robot's units, what it is in [-1, 1], and whether it is another one than was chosen;
            None where the choice is not finite.
        """
        if chosen.shape != (self._size,) or not np.isfinite(chosen).all():
            return None
        if self._discrete:
            return self._numbered(int(chosen.argmax())), np.clip(chosen, -1, 1), False
        within = np.clip(chosen, -1, 1)
        native, slowed = self._bounded(self._middle + self._half * within)
        limited = slowed or bool((within != chosen).any())
        return native, self.unit(native) if slowed else within.astype(np.float32), limited

    def admit_native(self, action: Any) -> Action | None:
        """As `admit`, of an action in the robot's units, as a server sends it."""
        values = np.asarray(action)
        if self._discrete:
            whole = values.shape == () and values.dtype.kind in "iu" and 0 <= int(values) < self._size
            return self._numbered(int(values)) if whole else None
        if values.shape != (self._size,) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            return None
        return self._bounded(values.astype(np.float64))[0]

    def safe(self) -> tuple[Action, NDArray[np.float32]]:
        """The declared safe action, or the last one; before the first the middle of the bounds, or number 0."""
        wanted = self._last if self._safe is None else self._safe
        native: Action
        if self._discrete:
            native = self._numbered(0 if wanted is None else int(wanted[0]))
        else:
            native, _ = self._bounded(self._middle if wanted is None else wanted)
        return native, self.unit(native)

    def _numbered(self, index: int) -> NDArray[np.int64]:
        """The number of a discrete action, remembered as the last one."""
        self._last = np.array([index], np.float64)
        return np.asarray(index, np.int64)

    def _bounded(self, wanted: NDArray[np.float64]) -> tuple[NDArray[np.float32], bool]:
        """Within the limits, and whether the rate limit moved it."""
        slowed, rounded = False, wanted.astype(np.float32)
        if self._change is not None and self._last is not None:
            low, high = self._last - self._change, self._last + self._change
            slowed = bool(((wanted < low) | (wanted > high)).any())
            rounded = np.clip(rounded, *_inward(low, high))  # the cast must not go further than allowed either
        native = np.clip(rounded, self.low, self.high)
        self._last = native.astype(np.float64)
        return native, slowed

    def unit(self, native: NDArray[Any]) -> NDArray[np.float32]:
        """What an action in the robot's units is in [-1, 1]: the other way round."""
        if self._discrete:
            return np.where(np.arange(self._size) == int(native), 1, -1).astype(np.float32)
        half = np.where(self._half > 0, self._half, 1)
        return np.clip((native - self._middle) / half, -1, 1).astype(np.float32)


def _inward(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds in float32 that no cast rounds outwards, where there is a float32 between them."""
    down, up = low.astype(np.float32), high.astype(np.float32)
    inner_low = np.where(down < low, np.nextafter(down, np.float32(np.inf)), down)
    inner_high = np.where(up > high, np.nextafter(up, np.float32(-np.inf)), up)
    fits = inner_low <= inner_high
    return np.where(fits, inner_low, down), np.where(fits, inner_high, down)
