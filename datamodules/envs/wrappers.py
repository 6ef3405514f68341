"""Environments around environments; as a source, `wrappers` wraps any other source in the same worker."""

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import require_open
from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Step
from datamodules.envs.sources import open_env

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def make(
    *, source: str, frame_stack: int = 1, grayscale: bool = False, time_limit: int | None = None, **kwargs: Any
) -> Env:
    """Open `source` with its own `kwargs`, truncated at `time_limit` control steps, grey, stacked; see open_env."""
    env = open_env(source=source, kwargs=kwargs)
    if time_limit is not None:
        env = TimeLimit(env, time_limit)
    if grayscale:
        env = Grayscale(env)
    return FrameStack(env, frame_stack) if frame_stack != 1 else env


class _Wrapper:
    def __init__(self, env: Env) -> None:
        self.env, self.spec = env, env.spec

    def __getattr__(self, name: str) -> Any:
        # `render` and `renderer` exist exactly where the wrapped environment has them
        return getattr(self.env, name)

    def close(self) -> None:
        """Close the wrapped environment."""
        self.env.close()


class FrameStack(_Wrapper):
    """The last `count` frames as channels [count * C, h, w], oldest first; a reset fills them with its own frame."""

    def __init__(self, env: Env, count: int) -> None:
        super().__init__(env)
        if count < 1:
            raise BadOption(f"frame_stack: expected >= 1, got {count}")
        channels, height, width = env.spec.pixels
        self.spec = replace(env.spec, pixels=(channels * count, height, width))
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=count)

    def reset(self, seed: int) -> Step:
        """Open the episode of `seed`."""
        step = self.env.reset(seed)
        self._frames.extend([step.pixels] * self._frames.maxlen)
        return replace(step, pixels=np.concatenate(self._frames))

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance the wrapped environment with an action [A]."""
        step = self.env.step(action)
        self._frames.append(step.pixels)
        return replace(step, pixels=np.concatenate(self._frames))


class Grayscale(_Wrapper):
    """Luma of RGB frames, [1, h, w]."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        if env.spec.pixels[0] != 3:
            raise BadOption(f"grayscale: expected 3 channels, got {env.spec.pixels[0]}")
        self.spec = replace(env.spec, pixels=(1, *env.spec.pixels[1:]))

    def reset(self, seed: int) -> Step:
        """Open the episode of `seed`."""
        return self._grey(self.env.reset(seed))

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance the wrapped environment with an action [A]."""
        return self._grey(self.env.step(action))

    def _grey(self, step: Step) -> Step:
        grey = np.tensordot(_LUMA, step.pixels.astype(np.float32), axes=1)
        return replace(step, pixels=np.rint(grey).astype(np.uint8)[None])


class TimeLimit(_Wrapper):
    """Truncate episodes once `limit` control steps (env_steps) have passed."""

    def __init__(self, env: Env, limit: int) -> None:
        super().__init__(env)
        if not 1 <= limit <= env.spec.episode_steps:
            raise BadOption(f"time_limit: expected 1..{env.spec.episode_steps} control steps, got {limit}")
        self.spec = replace(env.spec, episode_steps=limit)
        self._left = 0

    def reset(self, seed: int) -> Step:
        """Open the episode of `seed`."""
        self._left = self.spec.episode_steps
        return self.env.reset(seed)

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance the wrapped environment with an action [A]; raises NotReset after the limit."""
        require_open(self._left > 0)
        step = self.env.step(action)
        self._left = 0 if step.is_last else self._left - step.env_steps
        return replace(step, is_last=self._left <= 0)
