"""dm_control by its own observations: positions and velocities instead of frames."""

import math
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import checked_action, require_open
from datamodules.envs.dmc import ENDLESS_STEPS, control_range, split_task
from datamodules.envs.dmc_tasks import hold, own_loader, random_of, step_limit
from datamodules.envs.import_path import is_import_path
from datamodules.envs.states import StateStep
from worldmodel.spec import StateSpec


def make(
    *, task: str, action_repeat: int = 2, episode_steps: int | None = None, kwargs: Mapping[str, Any] | None = None
) -> "DmcStates":
    """Open `domain_task` of the suite, or what `package.module:function` returns; the arguments are dmc.py's."""
    suite = _import_suite()
    if is_import_path(task):
        env = own_loader(task, kwargs or {})()
    else:
        # lqr draws its springs when it is built: a fixed seed makes the task the same everywhere
        env = suite.load(*split_task(task, suite.ALL_TASKS), task_kwargs={"random": 0})
    return DmcStates(env, task=task, action_repeat=action_repeat, episode_steps=episode_steps)


def _import_suite() -> ModuleType:
    """The suite without a GL backend: one that draws software frames crashes a process that has torch."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        from dm_control import suite
    finally:
        os.environ.pop("MUJOCO_GL")
        os.environ.update({} if before is None else {"MUJOCO_GL": before})
    return suite


class DmcStates:
    """One task; an episode has the same physics as that of `dmc.py` with the same seed and actions."""

    def __init__(self, env: Any, *, task: str, action_repeat: int, episode_steps: int | None) -> None:
        self._env, self._random = env, random_of(env)
        bounds, limit = env.action_spec(), step_limit(env)
        self._middle, self._half = control_range(bounds.minimum, bounds.maximum)
        self._control_steps, self._open = 0, False
        self.spec = StateSpec(
            task=task,
            state={name: math.prod(part.shape) for name, part in env.observation_spec().items()},
            action_dim=bounds.shape[0],
            action_repeat=action_repeat,
            episode_steps=episode_steps or (math.ceil(limit) if math.isfinite(limit) else ENDLESS_STEPS),
        )

    def reset(self, seed: int) -> StateStep:
        """Open the episode of `seed`."""
        self._random.seed(seed % 2**32)
        row = self._env.reset()
        self._control_steps, self._open = 0, True
        return StateStep(_flat(row.observation), 0.0, is_last=False, is_terminal=False, env_steps=0)

    def step(self, action: NDArray[np.float32]) -> StateStep:
        """Hold an action [A] in [-1, 1] for action_repeat control steps and sum rewards; raises BadAction, NotReset."""
        require_open(self._open)
        control = self._middle + self._half * checked_action(action, action_dim=self.spec.action_dim)
        held = hold(self._env, control, self.spec.action_repeat, self.spec.episode_steps - self._control_steps)
        self._control_steps += held.env_steps
        self._open = not held.is_last
        return StateStep(_flat(held.observation), held.reward, held.is_last, held.is_terminal, held.env_steps)

    def close(self) -> None:
        """Free the physics."""
        self._env.close()
        self._env.physics.free()


def _flat(observation: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)
