"""Actions [A] in [-1, 1] as an environment's own: scaled to the bounds of a box, or the index of the largest."""

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadSpace
from worldmodel.spec import EnvSpec

# beyond this a bound stands for "none"
UNLIMITED = 1e6


@runtime_checkable
class Actions(Protocol):
    """How a checked action [A] becomes the environment's own."""

    dim: int
    discrete: bool
    bounds: dict[str, tuple[float, ...]]  # action_low and action_high of an EnvSpec, nothing where it is discrete

    def native(self, action: NDArray[np.float32]) -> Any:
        """The environment's action for `action` [A] in [-1, 1]."""


class BoxActions:
    """-1 is a box's lower bound and 1 its upper one, A the number of its entries."""

    discrete = False

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        self._low, self._high = low, high
        self.dim = math.prod(low.shape)
        self._middle = (low.astype(np.float64) + high) / 2
        self._half = (high.astype(np.float64) - low) / 2
        self.bounds = {"action_low": tuple(low.ravel().tolist()), "action_high": tuple(high.ravel().tolist())}

    def native(self, action: NDArray[np.float32]) -> NDArray[Any]:
        """An array of the box's shape and type, within its bounds after rounding too."""
        values = self._middle + self._half * action.reshape(self._low.shape)
        return np.clip(values.astype(self._low.dtype), self._low, self._high)


class DiscreteActions:
    """The largest of `count` entries is taken, the first of several; `start` is the environment's first action."""

    discrete = True

    def __init__(self, count: int, start: int) -> None:
        self.dim, self._start = count, start
        self.bounds: dict[str, tuple[float, ...]] = {}

    def native(self, action: NDArray[np.float32]) -> np.int64:
        """The index of the largest entry."""
        return np.int64(self._start + int(np.argmax(action)))


def actions_from(spec: EnvSpec) -> Actions:
    """The actions of a recorded spec: of its bounds, in [-1, 1] where they are not known; discrete ones from 0 on."""
    if spec.discrete:
        return DiscreteActions(spec.action_dim, 0)
    one = np.ones(spec.action_dim, np.float32)
    if spec.action_low is None or spec.action_high is None:
        return BoxActions(-one, one)
    return BoxActions(np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32))


def actions_of(space: Any) -> Actions:
    """The actions of a Gymnasium space: a Box of floats with finite bounds, or Discrete; raises BadSpace."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return DiscreteActions(int(space.n), int(space.start))
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f" or math.prod(space.shape) == 0:
        raise BadSpace(f"action: expected Discrete or a Box of floats, got {space}")
    if not ((np.abs(space.low) < UNLIMITED) & (np.abs(space.high) < UNLIMITED)).all():
        raise BadSpace(
            f"action: expected finite bounds below {UNLIMITED:g}, got {space}; in your environment, "
            "gymnasium.wrappers.TransformAction(env, lambda action: action, Box(low, high)) sets some"
        )
    return BoxActions(space.low, space.high)
