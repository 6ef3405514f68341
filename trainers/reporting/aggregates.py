"""Statistics over tasks and seeds: IQM, performance profile, probability of improvement, stratified bootstrap.

Definitions of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Scores are
returns by task, one for each training seed; tasks may have different numbers of seeds.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from trainers.run_folder.statistics import interquartile_mean

Scores = Mapping[str, NDArray[np.float64]]  # of each task [S], one for each seed
Statistic = Callable[[list[NDArray[np.float64]]], NDArray[np.float64]]  # of tasks' [R S] to [R] or [R X]

RESAMPLES = 2000
CONFIDENCE = 0.95


def mean(tasks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over tasks of the mean over seeds: of each task [R S] to [R]."""
    return np.mean([scores.mean(axis=1) for scores in tasks], axis=0)


def iqm(tasks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The interquartile mean of all runs: tasks' [R S] to [R]."""
    return interquartile_mean(np.concatenate(tasks, axis=1))


def run_mean(groups: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of all runs: groups' [R S] to [R]."""
    return np.concatenate(groups, axis=1).mean(axis=1)


def performance_profile(thresholds: NDArray[np.float64]) -> Statistic:
    """The statistic "share of runs that score more than", for thresholds [X]: tasks' [R S] to [R X].

    Every task counts the same, however many seeds it has.
    """

    def shares(tasks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        above = [(scores[:, :, None] > thresholds).mean(axis=1) for scores in tasks]
        return np.mean(above, axis=0)

    return shares


def probability_of_improvement(scores: Scores, others: Scores) -> tuple[float, tuple[float, float] | None]:
    """The probability that a run does better than another one on a task that both know, with its 95% interval.

    Over all pairs of their runs, ties count a half; the mean over the tasks that both have.

    Raises:
        ValueError: no task is in both.
    """
    shared = [task for task in scores if task in others]
    if not shared:
        raise ValueError(f"scores: expected a task of {sorted(others)}, got {sorted(scores)}")

    def better(pairs: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        wins = []
        for x, y in zip(pairs[::2], pairs[1::2], strict=True):
            difference = x[:, :, None] - y[:, None, :]
            wins.append(((difference > 0) + 0.5 * (difference == 0)).mean(axis=(1, 2)))
        return np.mean(wins, axis=0)

    both = {f"{task} {side}": group[task] for task in shared for side, group in (("x", scores), ("y", others))}
    return estimate(both, better)


def estimate(
    scores: Scores, statistic: Statistic, *, resamples: int = RESAMPLES
) -> tuple[float, tuple[float, float] | None]:
    """A statistic and its 95% interval by the stratified bootstrap.

    Returns:
        The value, and (low, high): percentiles over `resamples` in which every task's seeds are drawn with
        replacement from its own. None where no task has two seeds, since nothing can vary then.
    """
    value, low, high = bootstrap(scores, statistic, resamples=resamples)
    return float(value), None if low is None or high is None else (float(low), float(high))


def bootstrap(
    scores: Scores, statistic: Statistic, *, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """As `estimate`, for a statistic of several values [X]: value, low, high; raises ValueError for no score."""
    tasks = [np.asarray(group, dtype=np.float64).reshape(1, -1) for group in scores.values()]
    if not tasks or any(group.size == 0 for group in tasks):
        raise ValueError(f"scores: expected a score of every task, got {[group.size for group in tasks]}")
    value = statistic(tasks)[0]
    if all(group.size < 2 for group in tasks):
        return value, None, None
    generator = np.random.default_rng(0)
    drawn = [group[0][generator.integers(group.size, size=(resamples, group.size))] for group in tasks]
    low, high = np.quantile(statistic(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return value, low, high
