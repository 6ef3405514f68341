"""Random trajectories, and what must be equal when they come back."""

import numpy as np

from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="noise", images={"pixels": (3, 4, 4)}, action_dim=2, action_repeat=2, episode_steps=40)


def trajectory(rows: int, seed: int, *, terminal: bool = False, spec: EnvSpec = SPEC) -> Trajectory:
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32)
    reward, env_steps = rng.normal(size=rows).astype(np.float32), np.full(rows, 2, np.int32)
    action[0], reward[0], env_steps[0] = 0, 0, 0
    return Trajectory(
        {"pixels": rng.integers(0, 256, (rows, *spec.pixels), np.uint8)}, action, reward, terminal, env_steps
    )


def same(one: Trajectory, two: Trajectory) -> bool:
    arrays = ("pixels", "action", "reward", "env_steps")
    equal = [np.array_equal(getattr(one, name), getattr(two, name)) for name in arrays]
    return all(equal) and one.terminal == two.terminal
