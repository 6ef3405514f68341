"""Smooth drifting colour fields: plane waves of random direction, length and pace, summed."""

import numpy as np
from numpy.typing import NDArray

WAVES = 8  # per colour
LONGEST, SHORTEST = 1.5, 0.25  # wave lengths, of the image's side
FRAMES = 40, 160  # frames of a wave's period


class Waves:
    """Each colour is mid-grey plus sum_k a_k cos(2 pi (x, y) . f_k + phase_k + w_k t), all drawn from one seed.

    A sum over two factors of cosines is a product of matrices: [h, 2 K] @ [2 K, w] for each colour.
    """

    def __init__(self, *, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        shape = (3, WAVES, 1)
        frequency = 1 / rng.uniform(SHORTEST, LONGEST, shape)
        direction, self._phase = rng.uniform(0, 2 * np.pi, (2, *shape))
        self._pace = rng.choice((-1, 1), shape) * 2 * np.pi / rng.uniform(*FRAMES, shape)
        # long waves are strong ones; one standard deviation of a colour is a quarter of its range
        amplitude = 1 / frequency
        amplitude *= 64 / np.sqrt((amplitude**2).sum(1, keepdims=True) / 2)
        y = 2 * np.pi * frequency * np.sin(direction) * np.arange(height) / height
        self._x = 2 * np.pi * frequency * np.cos(direction) * np.arange(width) / width
        # cos(x + y) = cos(y) cos(x) - sin(y) sin(x)
        rows = np.concatenate([amplitude * np.cos(y), -amplitude * np.sin(y)], axis=1)
        self._rows = rows.transpose(0, 2, 1).astype(np.float32)

    def frame(self, time: int) -> NDArray[np.uint8]:
        """The field [3, h, w] at frame `time` of the episode."""
        x = (self._x + self._phase + self._pace * time).astype(np.float32)
        field = self._rows @ np.concatenate([np.cos(x), np.sin(x)], axis=1)
        return (field + np.float32(127.5)).clip(0, 255).astype(np.uint8)
