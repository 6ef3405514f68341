"""Shorter episodes."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import require_open, require_whole
from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Step
from datamodules.envs.wrapper import Wrapper


class TimeLimit(Wrapper):
    """Truncate episodes once `env_steps` control steps have passed."""

    def __init__(self, env: Env, *, env_steps: Any) -> None:
        super().__init__(env)
        require_whole("visuals.time_limit.env_steps", env_steps, least=1)
        if env_steps > env.spec.episode_steps:
            longest = env.spec.episode_steps
            raise BadOption(
                f"expected at most the task's {longest}, got {env_steps}", key="visuals.time_limit.env_steps"
            )
        self.spec = replace(env.spec, episode_steps=env_steps)
        self._left = 0

    def _begin(self, seed: int) -> None:
        self._left = self.spec.episode_steps

    def step(self, action: NDArray[np.floating]) -> Step:
        """Advance with an action [A]; raises NotReset after the limit."""
        require_open(self._left > 0)
        row = self.env.step(action)
        self._left = 0 if row.is_last else self._left - row.env_steps
        row.is_last = self._left <= 0
        return row


make = TimeLimit
