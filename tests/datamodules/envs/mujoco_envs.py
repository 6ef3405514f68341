"""Gymnasium's MuJoCo tasks for tests: one that blows up, alone and in lanes."""

import gymnasium
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv


class BlowsUp(HalfCheetahEnv):
    """Meets a velocity beyond all bounds in step `at` of every episode, or of none."""

    def __init__(self, at=None, **kwargs):
        super().__init__(**kwargs)
        self.at, self.time = at, 0

    def reset_model(self):
        self.time = 0
        return super().reset_model()

    def step(self, action):
        self.time += 1
        if self.time == self.at:
            self.data.qvel[0] = 1e11
        return super().step(action)


def lanes(num_envs, at):
    """All but the first lane blow up."""
    make = [lambda lane=lane: BlowsUp(at if lane else None, render_mode="rgb_array") for lane in range(num_envs)]
    return gymnasium.vector.SyncVectorEnv(make)
