"""The last frames side by side as channels, so that one observation shows motion."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import require_whole
from datamodules.envs.protocol import Env
from datamodules.envs.wrapper import Wrapper


class FrameStack(Wrapper):
    """The last `count` frames as channels [count * C, h, w], oldest first; a reset fills them with its own frame.

    The replay stores each stack: `count` times the memory.
    """

    hides_background = True

    def __init__(self, env: Env, *, count: Any = 3) -> None:
        super().__init__(env)
        require_whole("visuals.frame_stack.count", count, least=1)
        self.spec = replace(env.spec, images={n: (count * c, h, w) for n, (c, h, w) in env.spec.images.items()})
        self._frames = {name: np.empty((count, *shape), np.uint8) for name, shape in env.spec.images.items()}

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        frames = self._frames[name]
        if opens:
            frames[:] = image
        else:
            frames[:-1] = frames[1:]
            frames[-1] = image
        return frames.reshape(self.spec.images[name]).copy()


make = FrameStack
