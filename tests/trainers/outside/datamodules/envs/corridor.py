"""A corridor whose light grows towards its end."""

import numpy as np

from datamodules.envs.checks import checked_action, require_open
from datamodules.envs.protocol import Step
from worldmodel.spec import EnvSpec


class Corridor:
    def __init__(self, *, length: float, size: int, episode_steps: int):
        self.spec = EnvSpec("corridor", {"pixels": (3, size, size)}, 1, 1, episode_steps)
        self.length, self.place, self.steps = length, 0.0, 0

    def reset(self, seed):
        self.place, self.steps = float(np.random.default_rng(seed).uniform(0, self.length / 2)), 0
        return Step({"pixels": self._pixels()}, 0.0, is_first=True, is_last=False, is_terminal=False, env_steps=0)

    def step(self, action):
        require_open(self.steps < self.spec.episode_steps)
        self.place = float(np.clip(self.place + 0.2 * checked_action(action, action_dim=1)[0], 0, self.length))
        self.steps += 1
        last = self.steps == self.spec.episode_steps
        reward = self.place / self.length
        return Step({"pixels": self._pixels()}, reward, is_first=False, is_last=last, is_terminal=False, env_steps=1)

    def render(self, size):
        return np.full((size, size, 3), int(250 * self.place / self.length), np.uint8)

    def state_fingerprint(self):
        return np.float64(self.place).tobytes()

    def background_mask(self, image):
        return np.zeros((1, *self.spec.pixels[1:]), bool)

    def close(self):
        pass

    def _pixels(self):
        frame = np.zeros(self.spec.pixels, np.uint8)
        frame[:, :, : 1 + int(self.place / self.length * (frame.shape[2] - 2))] = 200
        return frame


def make(*, length: float = 3.0, size: int = 16, episode_steps: int = 20) -> Corridor:
    return Corridor(length=length, size=size, episode_steps=episode_steps)
