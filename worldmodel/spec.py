"""What an environment is, as a record that travels: no torch here, so environment workers can import it."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from worldmodel.errors import BadValue

# what two environments are compared by: what networks are built from; beside it what a step of the model is, or what
# a robot's numbers mean. Where nothing is said every field counts
INTERFACE = ("observed", "actions")
DYNAMICS = (*INTERFACE, "action_repeat")
UNITS = (*INTERFACE, "action_low", "action_high")
# facts that may not be known
_OPTIONAL = ("action_low", "action_high", "terminates")


class Difference(NamedTuple):
    """A fact in which two environments differ: its name in EnvSpec, and what it is of each."""

    fact: str
    expected: Any
    got: Any


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """Facts about one environment that networks, replay and reports are built from.

    An observation is a dict of arrays: uint8 images and float32 vectors, each under its own name. The image of a task
    that shows nothing else is called "pixels".

    Args:
        task: its name.
        images: (channels, height, width) of every image, by name, in the order in which they are stored.
        action_dim: number of action dimensions; actions are in [-1, 1] outside the environment.
        action_repeat: control steps (env_steps) per decision.
        episode_steps: control steps (env_steps) after which an episode is truncated.
        look: rendering quality, "suite" (shadows, reflections, multisampling), "fast" or "none".
        backend: GL backend that drew the images, "egl", "osmesa", "glfw" or "none".
        discrete: the environment has `action_dim` discrete actions and takes the index of the largest entry.
        visuals: the visual options that shaped the images, by wrapper name (JSON-able), in the order of application.
        vectors: how many numbers every vector has, by name, in the order in which they are stored.
        action_low, action_high: what -1 and 1 become in the environment's own units, for each action dimension; None
            where actions are discrete or the bounds are not known.
        terminates: whether an episode can end by termination, before its time is over; None where that is not known.
    """

    task: str
    images: Mapping[str, tuple[int, int, int]]
    action_dim: int
    action_repeat: int
    episode_steps: int
    look: str = "none"
    backend: str = "none"
    discrete: bool = False
    visuals: Mapping[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, int] = field(default_factory=dict)
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    terminates: bool | None = None

    @property
    def episode_decisions(self) -> int:
        """Decisions in a full episode (the last one may be shorter than action_repeat)."""
        return -(-self.episode_steps // self.action_repeat)

    @property
    def pixels(self) -> tuple[int, int, int]:
        """(channels, height, width) of the only image; raises ValueError where there are none or several."""
        if len(self.images) != 1:
            raise ValueError(f"images: expected one, got {list(self.images)}")
        return next(iter(self.images.values()))

    @property
    def colours(self) -> int:
        """Channels of one picture: 3, or 1 where frames are grey; a frame may hold several pictures."""
        return self.colours_of(next(iter(self.images)))

    def colours_of(self, image: str) -> int:
        """Channels of one picture within the image of that name."""
        return 1 if self.images[image][0] % 3 or "grayscale" in self.visuals else 3

    @property
    def observed(self) -> str:
        """What is observed in words, "3x64x64" of a plain pixel task, else each name with its size."""
        sizes = {name: "x".join(map(str, shape)) for name, shape in self.images.items()}
        sizes |= {name: str(count) for name, count in self.vectors.items()}
        return sizes["pixels"] if list(sizes) == ["pixels"] else ", ".join(f"{n} {size}" for n, size in sizes.items())

    @property
    def actions(self) -> str:
        """What is decided in words, "6 continuous" or "4 discrete"."""
        return f"{self.action_dim} {'discrete' if self.discrete else 'continuous'}"

    def differences(self, other: "EnvSpec", facts: Collection[str] = ()) -> Iterator[Difference]:
        """The facts in which an environment is not the one that is expected; the only such comparison there is.

        Args:
            other: the environment that was found.
            facts: names of fields and properties that count, such as INTERFACE; none for every field.

        Yields:
            What differs, the order of names included; what one of them does not know is left out.
        """
        for fact in facts or [one.name for one in fields(self)]:
            mine, others = getattr(self, fact), getattr(other, fact)
            unknown = fact in _OPTIONAL and None in (mine, others)
            # as JSON, since a tuple comes back from a file as a list
            if not unknown and json.dumps(mine) != json.dumps(others):
                yield Difference(fact, mine, others)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` restores it."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "EnvSpec":
        """Restore a spec written by `to_json`, or by a version that knew no image but `pixels`."""
        given = dict(fields)
        images = {"pixels": given.pop("pixels")} if "pixels" in given else given.pop("images")
        bounds = {key: given[key] for key in ("action_low", "action_high") if given.get(key) is not None}
        given |= {key: tuple(map(float, bound)) for key, bound in bounds.items()}
        return cls(**given, images={name: tuple(shape) for name, shape in images.items()})


def require_same(expected: EnvSpec, got: EnvSpec, facts: Collection[str], *, key: str, told: str) -> None:
    """Check that an agent can act, or learn, in another environment than its own.

    Args:
        expected: the agent's environment.
        got: the other one.
        facts: that count, such as INTERFACE.
        key: of the setting that chose the other one, for the message.
        told: why these facts are expected, for the message.

    Raises:
        BadValue: names the first fact in which they differ.
    """
    for fact, mine, others in expected.differences(got, facts):
        raise BadValue(f"{key}: expected {fact} {mine} {told}, got {others}")
