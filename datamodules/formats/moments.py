"""Least, greatest, mean and standard deviation of what comes in parts: rows of numbers, and frames."""

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Running statistics of rows [n, D]; parts are merged pairwise (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in rows [n, D], n > 0."""
        values = rows.astype(np.float64)
        count, mean = len(values), values.mean(0)
        spread = ((values - mean) ** 2).sum(0)
        if not self.count:
            self.least, self.most, self.mean, self.spread = values.min(0), values.max(0), mean, spread
        else:
            total, shift = self.count + count, mean - self.mean
            self.least, self.most = np.minimum(self.least, values.min(0)), np.maximum(self.most, values.max(0))
            self.spread = self.spread + spread + shift**2 * self.count * count / total
            self.mean = self.mean + shift * count / total
        self.count += count

    def summary(self) -> dict[str, list[float]]:
        """min, max, mean and std (of the population) as lists [D], and count [1]."""
        std = np.sqrt(self.spread / self.count)
        values = {"min": self.least, "max": self.most, "mean": self.mean, "std": std}
        return {**{key: value.tolist() for key, value in values.items()}, "count": [self.count]}


class Shades:
    """Running statistics of frames [T, C, h, w] uint8 by channel, as numbers in 0..1: a count of each of 256 shades."""

    def __init__(self, channels: int) -> None:
        self._counts = np.zeros((channels, 256), np.int64)

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Take in frames [T, C, h, w]."""
        for channel, counts in enumerate(self._counts):
            counts += np.bincount(frames[:, channel].reshape(-1), minlength=256)

    def summary(self) -> dict[str, list[float]]:
        """min, max, mean and std (of the population) as lists [C]."""
        shades, weights = np.arange(256) / 255, self._counts / self._counts.sum(1, keepdims=True)
        mean = weights @ shades
        std = np.sqrt((weights * (shades - mean[:, None]) ** 2).sum(1))
        seen = [shades[counts > 0] for counts in self._counts]
        ends = {"min": [float(each[0]) for each in seen], "max": [float(each[-1]) for each in seen]}
        return {**ends, "mean": mean.tolist(), "std": std.tolist()}
