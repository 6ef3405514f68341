"""What a robot and a bundle must agree on: observations and actions in the robot's units, the rate, delays and limits.

No torch here: a robot's program can read it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from worldmodel.errors import BadValue, UserError, naming
from worldmodel.limits import require_number, require_whole
from worldmodel.spec import EnvSpec


class DeviceDiffers(UserError, ValueError):
    """A bundle does not fit a device; names the key, what the bundle has and what the device has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When an observation counts as missing, how long predictions and old plans are trusted, when to stop.

    Args:
        max_age_s: seconds since the capture after which a frame is too old to act on.
        missing: decisions in a row without a usable observation that are bridged by prediction in latent space.
        plan_age: decisions for which the rest of an earlier plan is executed.
        frozen: equal frames in a row after which a camera counts as frozen; 0 for scenes that may stand still.
        faults: safe actions in a row after which the controller stops until it is released by hand.
        vector_stds: how many stds of the training data a number of a vector may be off its mean.
        prediction_error: the mean of five one-step prediction errors above which `Status.alarm` is raised; None: never.
    """

    max_age_s: float = 0.2
    missing: int = 5
    plan_age: int = 2
    frozen: int = 20
    faults: int = 3
    vector_stds: float = 100.0
    prediction_error: float | None = None

    def __post_init__(self) -> None:
        with naming("limits"):
            require_number(max_age_s=self.max_age_s, vector_stds=self.vector_stds, above=0)
            if self.prediction_error is not None:
                require_number(prediction_error=self.prediction_error, above=0)
            require_whole(missing=self.missing, plan_age=self.plan_age, frozen=self.frozen, least=0)
            require_whole(faults=self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSpec:
    """How an agent is run on a robot.

    Args:
        env: what the agent was trained in; `env.action_low` and `action_high` are the robot's units.
        hz: decisions per second.
        safe_action: [A] in the robot's units, or the number of one where actions are discrete: what to do when nothing
            else can be trusted. None holds the last action.
        max_change: [A] in the robot's units per decision; None without a limit.
        action_latency_s: seconds from a command to when it acts.
        observation_age_s: seconds from a frame's capture to the decision that sees it.
        limits: see `Limits`.

    Raises:
        BadValue: for a value out of range.
    """

    env: EnvSpec
    hz: float
    safe_action: tuple[float, ...] | None = None
    max_change: tuple[float, ...] | None = None
    action_latency_s: float = 0.0
    observation_age_s: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require_rate(self.hz)
        require_number(
            action_latency_s=self.action_latency_s, observation_age_s=self.observation_age_s, least=0, most=10
        )
        low, high = self.bounds
        size = 1 if self.env.discrete else self.env.action_dim
        if self.safe_action is not None:
            _require_numbers("safe_action", self.safe_action, size)
            if self.env.discrete:
                _require_number_of_action(self.safe_action[0], self.env.action_dim)
            elif not all(lo <= x <= hi for x, lo, hi in zip(self.safe_action, low, high, strict=True)):
                raise BadValue(f"safe_action: expected within {low} and {high}, got {self.safe_action}")
        if self.max_change is not None:
            if self.env.discrete:
                raise BadValue("max_change: expected none with discrete actions")
            _require_numbers("max_change", self.max_change, size)
            if min(self.max_change) < 0:
                raise BadValue(f"max_change: expected numbers of at least 0, got {self.max_change}")

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest action [A] in the robot's units; -1 and 1 where the environment's are not known."""
        low, high = self.env.action_low, self.env.action_high
        if low is None or high is None:
            return (-1.0,) * self.env.action_dim, (1.0,) * self.env.action_dim
        return low, high

    @property
    def delay(self) -> int:
        """Decisions between what a frame shows and when the action that is chosen on it acts."""
        return round((self.action_latency_s + self.observation_age_s) * self.hz)

    def observation(self) -> dict[str, Any]:
        """Type and shape of every observation, images as a camera gives them, [height, width, channels]."""
        images = {name: {"dtype": "uint8", "shape": [h, w, c]} for name, (c, h, w) in self.env.images.items()}
        return images | {name: {"dtype": "float32", "shape": [d]} for name, d in self.env.vectors.items()}

    def action(self) -> dict[str, Any]:
        """Type, shape and bounds of the action."""
        if self.env.discrete:
            return {"dtype": "int64", "shape": [], "count": self.env.action_dim}
        low, high = self.bounds
        return {"dtype": "float32", "shape": [self.env.action_dim], "low": list(low), "high": list(high)}

    def require_device(self, device: object) -> None:
        """Check that a device gives these observations and takes these actions at this rate.

        Args:
            device: `observation`, `action` and `hz` in the form of `to_json`, lists as arrays or tuples too; what it
                leaves out is not compared. Images may be of another size: frames are resized.

        Raises:
            DeviceDiffers: names the first key that differs.
        """
        mine = {"observation": self.observation(), "action": self.action(), "hz": self.hz}
        if not isinstance(device, Mapping):
            raise DeviceDiffers(f"device: expected some of {', '.join(mine)} by name, got {device!r}")
        for key in device:
            if key not in mine:
                raise DeviceDiffers(f"device.{key}: expected one of {', '.join(mine)}")
            _compare(key, mine[key], device[key], images=tuple(self.env.images))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` restores it."""
        return {
            "observation": self.observation(),
            "action": self.action(),
            "env": self.env.to_json(),
            **{key: getattr(self, key) for key in ("hz", "safe_action", "max_change")},
            **{key: getattr(self, key) for key in ("action_latency_s", "observation_age_s")},
            "limits": asdict(self.limits),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ControlSpec":
        """Restore what `to_json` wrote; raises BadValue for anything else."""
        try:
            given = dict(fields)
            said = {key: given.pop(key) for key in ("observation", "action")}
            pairs = {key: given.pop(key) for key in ("safe_action", "max_change")}
            limits, env = Limits(**given.pop("limits")), EnvSpec.from_json(given.pop("env"))
            lists: dict[str, Any] = {
                key: None if pair is None else tuple(map(float, pair)) for key, pair in pairs.items()
            }
            spec = cls(env=env, limits=limits, **lists, **given)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadValue(f"control: expected what this version writes, got {error!r}") from error
        for key, value in said.items():
            if value != getattr(spec, key)():
                raise BadValue(f"{key}: expected {getattr(spec, key)()} as of the environment, got {value}")
        return spec


def _compare(key: str, mine: Any, other: Any, *, images: tuple[str, ...]) -> None:
    if isinstance(mine, Mapping):
        if not isinstance(other, Mapping) or mine.keys() != other.keys():
            got = list(other) if isinstance(other, Mapping) else other
            raise DeviceDiffers(f"{key}: the bundle has {list(mine)}, the device {got}")
        for name in mine:
            _compare(f"{key}.{name}", mine[name], other[name], images=images)
        return
    other = _listed(other)
    resized = key in {f"observation.{name}.shape" for name in images}
    if resized and isinstance(other, list) and len(other) == 3 and other[2] == mine[2]:
        return
    if not _same(mine, other):
        raise DeviceDiffers(f"{key}: the bundle has {mine}, the device {other}")


def _listed(value: Any) -> Any:
    """Arrays and tuples as lists, as a driver may have them."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _same(mine: Any, other: Any) -> bool:
    """Whether they are equal, numbers up to float32's rounding, types by their names."""
    if isinstance(mine, list):
        return isinstance(other, list) and len(mine) == len(other) and all(map(_same, mine, other))
    if isinstance(mine, str):
        return mine == str(other)
    return isinstance(other, int | float) and math.isclose(mine, other, rel_tol=1e-6)


def require_rate(hz: float) -> None:
    """Raise BadValue unless so many decisions per second can be asked for."""
    require_number(hz=hz, above=0, most=10_000)


def _require_number_of_action(value: float, count: int) -> None:
    if not (value.is_integer() and 0 <= value < count):
        raise BadValue(f"safe_action: expected the number of an action, 0 to {count - 1}, got {value:g}")


def _require_numbers(key: str, values: tuple[float, ...], size: int) -> None:
    if len(values) != size or not all(math.isfinite(x) for x in values):
        raise BadValue(f"{key}: expected {size} finite numbers, got {values}")
