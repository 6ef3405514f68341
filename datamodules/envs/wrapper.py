"""An environment around an environment: what every visual option is made of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Step

# what an environment may offer beyond the protocol and a wrapper hands on, so it exists exactly where it did
OFFERS = ("render", "renderer", "background_mask", "state_fingerprint", "notes")


class Wrapper:
    """The wrapped environment with other frames; an option overrides `_begin`, `_see` or what it changes."""

    hides: tuple[str, ...] = ()  # offers that no longer fit the frames of this wrapper

    def __init__(self, env: Env) -> None:
        self.env, self.spec = env, env.spec

    def __getattr__(self, name: str) -> Any:
        if name in OFFERS and name not in self.hides:
            return getattr(self.env, name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def reset(self, seed: int) -> Step:
        """Open the episode of `seed`."""
        self._begin(seed)
        return self._shown(self.env.reset(seed))

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance the wrapped environment with an action [A]."""
        return self._shown(self.env.step(action))

    def close(self) -> None:
        """Close the wrapped environment."""
        self.env.close()

    def _begin(self, seed: int) -> None:
        """Draw what is random in the episode of `seed`."""

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        """What to show of the source's image [C, h, w] of that name; opens: it is an episode's first."""
        return image

    def _shown(self, step: Step) -> Step:
        for name in self.env.spec.images:
            step.observation[name] = self._see(name, step.observation[name], opens=step.is_first)
        return step


def colour_views(env: Env, option: str) -> dict[str, int]:
    """How many RGB pictures each image of `env` is made of; raises BadOption when they are not in colour."""
    for name, (channels, _, _) in env.spec.images.items():
        if env.spec.colours_of(name) != 3:
            where = "" if name == "pixels" else f" of {name}"
            raise BadOption(f"visuals.{option}: expected RGB frames{where} (before grayscale), got {channels} channels")
    return {name: shape[0] // 3 for name, shape in env.spec.images.items()}
