"""A moving background behind what matters: distractors for studies of generalisation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.backdrops.clips import Clips, Playback
from datamodules.envs.backdrops.waves import Waves
from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Step
from datamodules.envs.wrapper import Wrapper, background_of, colour_views

# keeps these draws apart from those that other options make from the same seed
_STREAM = 2


class Background(Wrapper):
    """Background pixels show a pattern that moves one frame with every decision, another one in every episode.

    videos: a video, or a folder of videos or pictures, see backdrops/clips.py; by default drifting colours
    (backdrops/waves.py). key_colour: the RGB of background pixels, for a source that cannot tell them
    (`background_mask`). All views of one frame have the same pattern. Raises BadOption for a source with neither.
    """

    def __init__(self, env: Env, *, videos: str | None = None, key_colour: Any = None) -> None:
        super().__init__(env)
        self._views = colour_views(env, "background")
        sizes = [shape[1:] for shape in env.spec.images.values()]
        self._key = None if key_colour is None else _checked_colour(key_colour)
        self._tells = background_of(env)
        if self._key is None and self._tells is None:
            raise BadOption(
                "visuals.background: expected a source that tells its background (dmc, toy) and no frame_stack or "
                "resize before it, or a key_colour: [red, green, blue]"
            )
        self._clips = None if videos is None else {size: Clips(videos, size=size) for size in sizes}
        self._sizes, self._patterns = set(sizes), dict[tuple[int, int], Waves | Playback]()
        self._time = 0

    def _begin(self, seed: int) -> None:
        for size in self._sizes:
            # the same draws for images of every size
            rng = np.random.default_rng([_STREAM, seed])
            self._patterns[size] = (
                Waves(size=size, rng=rng) if self._clips is None else Playback(self._clips[size], rng=rng)
            )
        self._time = -1

    def _shown(self, step: Step) -> Step:
        self._time += 1
        return super()._shown(step)

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        size = image.shape[1:]
        views = image.reshape(self._views[name], 3, *size)
        seen = np.where(self._mask(name, views)[:, None], self._patterns[size].frame(self._time), views)
        return seen.reshape(image.shape)

    def _mask(self, name: str, views: NDArray[np.uint8]) -> NDArray[np.bool_]:
        if self._key is not None:
            return (views == self._key[:, None, None]).all(axis=1)
        assert self._tells is not None
        return self._tells(name)


def _checked_colour(colour: Any) -> NDArray[np.uint8]:
    valid = isinstance(colour, Sequence) and len(colour) == 3 and all(type(c) is int and 0 <= c <= 255 for c in colour)
    if not valid:
        raise BadOption(f"visuals.background.key_colour: expected three numbers in 0..255, got {colour!r}")
    return np.array(colour, np.uint8)


make = Background
