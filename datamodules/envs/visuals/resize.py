"""Frames of another size, for sources that draw one size only."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import require_whole
from datamodules.envs.images import area_resized
from datamodules.envs.protocol import Env
from datamodules.envs.wrapper import Wrapper


class Resize(Wrapper):
    """Frames [C, size, size]: the mean over the covered area where they shrink, the nearest pixel where they grow.

    The sides are scaled each for itself: a frame that is not square is squeezed.
    """

    hides_background = True

    def __init__(self, env: Env, *, size: Any = 64) -> None:
        super().__init__(env)
        require_whole("visuals.resize.size", size, least=1)
        self.spec = replace(env.spec, images={n: (shape[0], size, size) for n, shape in env.spec.images.items()})

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        return area_resized(image, *self.spec.images[name][1:])


make = Resize
