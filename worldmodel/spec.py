"""What an environment is, as a record that travels: no torch here, so environment workers can import it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """Facts about one environment that networks, replay and reports are built from.

    pixels: (channels, height, width) of one uint8 observation.
    action_dim: number of action dimensions; actions are in [-1, 1] outside the environment.
    action_repeat: control steps (env_steps) per decision.
    episode_steps: control steps (env_steps) after which an episode is truncated.
    look: rendering quality, "suite" (shadows, reflections, multisampling), "fast" or "none".
    backend: GL backend that drew the pixels, "egl", "osmesa", "glfw" or "none".
    discrete: the environment has `action_dim` discrete actions and takes the index of the largest entry.
    visuals: the visual options that shaped the pixels, by wrapper name (JSON-able), in the order of application.
    """

    task: str
    pixels: tuple[int, int, int]
    action_dim: int
    action_repeat: int
    episode_steps: int
    look: str = "none"
    backend: str = "none"
    discrete: bool = False
    visuals: Mapping[str, Any] = field(default_factory=dict)

    @property
    def episode_decisions(self) -> int:
        """Decisions in a full episode (the last one may be shorter than action_repeat)."""
        return -(-self.episode_steps // self.action_repeat)

    @property
    def colours(self) -> int:
        """Channels of one image: 3, or 1 where frames are grey; a frame may hold several images."""
        return 1 if self.pixels[0] % 3 or "grayscale" in self.visuals else 3

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` restores it."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "EnvSpec":
        """Restore a spec written by `to_json`."""
        return cls(**{**fields, "pixels": tuple(fields["pixels"])})


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Facts about an environment whose state is observed.

    state: what it consists of, and how many numbers each part has, in their order. action_dim, action_repeat and
    episode_steps: as in `EnvSpec`. look, backend: as there, of films of it; "none" where nothing is drawn.
    """

    task: str
    state: Mapping[str, int]
    action_dim: int
    action_repeat: int
    episode_steps: int
    look: str = "none"
    backend: str = "none"

    @property
    def state_dim(self) -> int:
        """Numbers in a state."""
        return sum(self.state.values())

    @property
    def episode_decisions(self) -> int:
        """Decisions in a full episode (the last one may be shorter than action_repeat)."""
        return -(-self.episode_steps // self.action_repeat)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return asdict(self)
