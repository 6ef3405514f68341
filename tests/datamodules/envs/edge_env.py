"""A point that earns more the nearer it comes to an edge, beyond which its episode is over."""

from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

EDGE, STEP, SIDE = 0.6, 0.25, 16


class Edge(gymnasium.Env):
    """x in [-1, 1], pushed by a in [-1, 1]; earns (x + 1) / 2 a step and ends by termination where x > EDGE.

    Going on to the right is best where nothing ends; the best is to wait before the edge, which earns 0.8 a step.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, image=False, render_mode=None):
        self.image, self.render_mode = image, render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (1,))
        seen = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8) if image else spaces.Box(-1.0, 1.0, (2,))
        self.observation_space = seen
        self.x = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.8, 0.4)
        return self._seen(), {}

    def step(self, action):
        self.x = float(np.clip(self.x + STEP * float(action[0]), -1.0, 1.0))
        return self._seen(), (self.x + 1) / 2, self.x > EDGE, False, {}

    def render(self):
        columns = np.exp(-0.5 * ((np.linspace(-1.2, 1.2, SIDE) - self.x) / 0.15) ** 2)
        frame = np.zeros((SIDE, SIDE, 3), np.uint8)
        frame[..., 0] = 255 * columns
        frame[..., 2] = 40
        return frame

    def _seen(self):
        return self.render() if self.image else np.float32([self.x, self.x**2])
