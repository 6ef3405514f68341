"""The last frames side by side as channels, so that one observation shows motion."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import require_whole
from datamodules.envs.protocol import Env, Step
from datamodules.envs.wrapper import Wrapper


class FrameStack(Wrapper):
    """The last `count` frames as channels [count * C, h, w], oldest first; a reset fills them with its own frame.

    The replay stores each stack: `count` times the memory.
    """

    hides = ("background_mask",)

    def __init__(self, env: Env, *, count: int = 3) -> None:
        super().__init__(env)
        require_whole("visuals.frame_stack.count", count, least=1)
        channels, height, width = env.spec.pixels
        self.spec = replace(env.spec, images={"pixels": (channels * count, height, width)})
        self._frames = np.empty((count, *env.spec.pixels), np.uint8)

    def _see(self, step: Step) -> NDArray[np.uint8]:
        if step.is_first:
            self._frames[:] = step.pixels
        else:
            self._frames[:-1] = self._frames[1:]
            self._frames[-1] = step.pixels
        return self._frames.reshape(self.spec.pixels).copy()


make = FrameStack
