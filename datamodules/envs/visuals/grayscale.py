"""Luma instead of colour: a third of the memory, and nothing to be learned from hue."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Env
from datamodules.envs.wrapper import Wrapper, colour_views

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Grayscale(Wrapper):
    """Luma of the frame's V RGB images, [V, h, w]."""

    hides_background = True

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._views = colour_views(env, "grayscale")
        images = {name: (views, *env.spec.images[name][1:]) for name, views in self._views.items()}
        self.spec = replace(env.spec, images=images)

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        colours = image.reshape(self._views[name], 3, -1)
        return np.rint(LUMA @ colours.astype(np.float32)).astype(np.uint8).reshape(self.spec.images[name])


make = Grayscale
