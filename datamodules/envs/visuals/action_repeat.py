"""Hold every action for several steps, for sources without an action repeat of their own."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import require_whole
from datamodules.envs.protocol import Env, Step
from datamodules.envs.wrapper import Wrapper


class ActionRepeat(Wrapper):
    """Step `count` times with the same action, or until the episode ends; rewards and env_steps are summed.

    Multiplies the source's own action repeat. The frames in between are drawn and dropped: a source that can skip
    them itself (`task.env.action_repeat`) is faster.
    """

    def __init__(self, env: Env, *, count: Any = 2) -> None:
        super().__init__(env)
        require_whole("visuals.action_repeat.count", count, least=1)
        self._count = count
        self.spec = replace(env.spec, action_repeat=env.spec.action_repeat * count)

    def step(self, action: NDArray[np.floating]) -> Step:
        # a copy for every call: an environment may change in place what it is given
        row = self.env.step(action.copy())
        for _ in range(self._count - 1):
            if row.is_last:
                break
            reward, env_steps = row.reward, row.env_steps
            row = self.env.step(action.copy())
            row.reward += reward
            row.env_steps += env_steps
        return row


make = ActionRepeat
