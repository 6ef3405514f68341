"""A format: a text file with a seed on every line, and a drawn episode for each."""

import numpy as np

from datamodules.formats.protocol import Notes
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec


class Dots:
    def __init__(self, path, rows):
        self.seeds, self.rows, self.problems, self.notes = path.read_text().split(), rows, [], Notes()
        self.spec = EnvSpec("dots", {"pixels": (3, 16, 16)}, 2, 1, rows - 1)

    def __len__(self):
        return len(self.seeds)

    def trajectories(self):
        for seed in self.seeds:
            rng = np.random.default_rng(int(seed))
            action = rng.uniform(-1, 1, (self.rows, 2)).astype(np.float32)
            action[0] = 0
            reward, steps = action[:, 0].copy(), np.ones(self.rows, np.int32)
            steps[0] = 0
            pixels = rng.integers(0, 256, (self.rows, 3, 16, 16), np.uint8)
            yield Trajectory({"pixels": pixels}, action, reward, terminal=False, env_steps=steps)

    def close(self):
        pass


def open_reader(path, *, rows: int = 12):
    return Dots(path, rows)
