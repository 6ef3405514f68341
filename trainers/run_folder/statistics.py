"""Statistics of a handful of returns."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

FEWEST_FOR_INTERVAL = 4  # of fewer returns a standard deviation says next to nothing


def mean_ci95(returns: ArrayLike) -> tuple[float, float] | None:
    """The 95% interval of the mean by Student's t: over the episodes of one trained agent, not over training seeds.

    Args:
        returns: [N], one per episode.

    Returns:
        (low, high), or None below four episodes, where no interval of a useful width covers the mean in 95% of cases.

    Raises:
        ValueError: N is 0.
    """
    values = _returns(returns)
    if len(values) < FEWEST_FOR_INTERVAL:
        return None
    # the quantile itself, since scipy.stats takes a second to load
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return mean - half, mean + half


def evaluation_metrics(returns: ArrayLike) -> dict[str, float]:
    """What a row of metrics says of the returns [N] of an evaluation; without an interval where there is none."""
    values = _returns(returns)
    interval = dict(zip(("eval/return_ci95_low", "eval/return_ci95_high"), mean_ci95(values) or (), strict=False))
    return {"eval/return_mean": float(values.mean()), **interval, "eval/episodes": len(values)}


def iqm(returns: ArrayLike) -> float:
    """The interquartile mean of returns [N]; ValueError when N is 0."""
    return float(interquartile_mean(_returns(returns)[None])[0])


def interquartile_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of scores [R N] to [R]: without the lowest and the highest N // 4."""
    cut = scores.shape[1] // 4
    return np.sort(scores, axis=1)[:, cut : scores.shape[1] - cut].mean(axis=1)


def _returns(returns: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(returns, dtype=np.float64).reshape(-1)
    if not len(values):
        raise ValueError("returns: expected at least one episode's return, got none")
    return values
