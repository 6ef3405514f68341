"""An environment around an environment: what every visual option is made of."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Step, TellsBackground


class Wrapper:
    """The wrapped environment with other frames; an option overrides `_begin`, `_see` or what it changes."""

    hides_background = False  # whether the source's background mask no longer fits the frames of this wrapper

    def __init__(self, env: Env) -> None:
        self.env, self.spec = env, env.spec

    def reset(self, seed: int) -> Step:
        self._begin(seed)
        return self._shown(self.env.reset(seed))

    def step(self, action: NDArray[np.floating]) -> Step:
        return self._shown(self.env.step(action))

    def close(self) -> None:
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


def source_of(env: Env) -> Env:
    """The environment within all wrappers, which has what a source may offer beyond `Env`."""
    while isinstance(env, Wrapper):
        env = env.env
    return env


def background_of(env: Env) -> Callable[[str], NDArray[np.bool_]] | None:
    """The source's `background_mask`, where it has one that fits the frames of `env`."""
    while isinstance(env, Wrapper):
        if env.hides_background:
            return None
        env = env.env
    return env.background_mask if isinstance(env, TellsBackground) else None


def colour_views(env: Env, option: str) -> dict[str, int]:
    """How many RGB pictures each image of `env` is made of; raises BadOption when they are not in colour."""
    for name, (channels, _, _) in env.spec.images.items():
        if env.spec.colours_of(name) != 3:
            where = "" if name == "pixels" else f" of {name}"
            raise BadOption(
                f"expected RGB frames{where} (before grayscale), got {channels} channels", key=f"visuals.{option}"
            )
    return {name: shape[0] // 3 for name, shape in env.spec.images.items()}
