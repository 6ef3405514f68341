"""Least, greatest, mean and standard deviation of rows that come in parts."""

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
