"""Curves over several runs: the mean over seeds, the IQM over tasks, each with its bootstrap interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.reporting import aggregates
from trainers.reporting.aggregates import Statistic
from trainers.reporting.run_set import PREDICTED, REALISED, RunResult, RunSet

Array = NDArray[np.float64]
MOST_POINTS = 60  # of a curve over runs: each has a bootstrap of its own
RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Band:
    """A curve over runs: places, values and interval [N] (None where there is one seed), of how many seeds."""

    x: Array
    y: Array
    low: Array | None
    high: Array | None
    seeds: int


def mean_over_seeds(runs: Sequence[RunResult]) -> Band | None:
    """The mean of evaluations over env_steps, of finished runs, or of all where none is.

    It ends where the first of them ends, so that the same seeds are in every point.
    """
    return _band({"": [run.column() for run in _finished(runs)]}, aggregates.mean)


def over_tasks(runs: RunSet, variant: str, axis: str) -> Band | None:
    """The IQM over all runs of a variant, over "env_steps" or "seconds".

    A run that has ended keeps its last return, so that no run leaves the set on the way; it begins where every run has
    been evaluated once, or with the return of random actions where that is known.
    """
    groups = {task: _finished(runs.of(task=task, variant=variant)) for task in runs.tasks}
    curves = {task: [_from_start(run, axis) for run in group] for task, group in groups.items()}
    return _band(curves, aggregates.iqm, to_the_last=True)


def exploitation(runs: Sequence[RunResult]) -> Band | None:
    """Predicted minus realised return of plans over env_steps: above zero the planner exploits errors of the model."""
    return _band({"": [_gap(run) for run in _finished(runs)]}, aggregates.mean)


def _finished(runs: Sequence[RunResult]) -> list[RunResult]:
    finished = [run for run in runs if run.is_finished]
    return finished or list(runs)


def _from_start(run: RunResult, axis: str) -> tuple[Array, Array]:
    """A run's evaluations, and before them what random actions earned."""
    x, y = run.column(axis=axis)
    random_x, random_y = run.column("train/random_return", axis)
    if len(x) and len(random_x) and random_x[0] < x[0]:
        return np.concatenate([random_x[:1], x]), np.concatenate([random_y[:1], y])
    return x, y


def _gap(run: RunResult) -> tuple[Array, Array]:
    x, predicted = run.column(PREDICTED)
    realised_x, realised = run.column(REALISED)
    both = np.isin(x, realised_x)
    return x[both], predicted[both] - realised[np.isin(realised_x, x)]


def _band(
    curves: Mapping[str, Sequence[tuple[Array, Array]]], statistic: Statistic, *, to_the_last: bool = False
) -> Band | None:
    """A statistic along curves (places, values) by task; None where there are none, or no place that all come to."""
    known = {task: [(x, y) for x, y in group if len(x)] for task, group in curves.items()}
    places = [x for group in known.values() for x, _ in group]
    grid = _grid(places, to_the_last=to_the_last) if places else np.empty(0)
    if not len(grid):
        return None
    values = {task: np.stack([np.interp(grid, x, y) for x, y in group]) for task, group in known.items() if group}
    at = [
        aggregates.estimate({task: group[:, i] for task, group in values.items()}, statistic, resamples=RESAMPLES)
        for i in range(len(grid))
    ]
    y = np.array([value for value, _ in at])
    intervals = [interval for _, interval in at if interval is not None]
    low, high = np.array(intervals).T if len(intervals) == len(at) else (None, None)
    return Band(grid, y, low, high, seeds=max(map(len, values.values())))


def _grid(places: Sequence[Array], *, to_the_last: bool) -> Array:
    """Places from where all curves have begun to where the first has ended, or the last, thinned."""
    begin, end = max(x[0] for x in places), (max if to_the_last else min)(x[-1] for x in places)
    every = np.unique(np.concatenate(places))
    within = every[(every >= begin) & (every <= end)]
    if len(within) <= MOST_POINTS:
        return within
    return np.linspace(within[0], within[-1], MOST_POINTS)
