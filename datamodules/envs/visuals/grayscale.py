"""Luma instead of colour: a third of the memory, and nothing to be learned from hue."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Env, Step
from datamodules.envs.wrapper import Wrapper, colour_views

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Grayscale(Wrapper):
    """Luma of the frame's V RGB images, [V, h, w]."""

    hides = ("background_mask",)

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._views = colour_views(env, "grayscale")
        self.spec = replace(env.spec, images={"pixels": (self._views, *env.spec.pixels[1:])})

    def _see(self, step: Step) -> NDArray[np.uint8]:
        colours = step.pixels.reshape(self._views, 3, -1)
        return np.rint(LUMA @ colours.astype(np.float32)).astype(np.uint8).reshape(self.spec.pixels)


make = Grayscale
