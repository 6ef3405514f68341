"""Statistics of a handful of returns."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bootstrap_ci95(returns: ArrayLike, seed: int = 0, resamples: int = 10_000) -> tuple[float, float]:
    """The 95% percentile-bootstrap interval (low, high) of the mean of returns [N]; ValueError when N is 0."""
    values = _returns(returns)
    picks = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def iqm(returns: ArrayLike) -> float:
    """The interquartile mean of returns [N]: without the lowest and the highest N // 4; ValueError when N is 0."""
    values = np.sort(_returns(returns))
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean())


def _returns(returns: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(returns, dtype=np.float64).reshape(-1)
    if not len(values):
        raise ValueError("returns: expected at least one episode's return, got none")
    return values
