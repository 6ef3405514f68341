"""The numbers of a set of runs that a program reads: what the sweep and its report both print."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.reporting import aggregates
from trainers.reporting.aggregates import Scores
from trainers.reporting.published_curves import MARKS, return_at
from trainers.reporting.run_set import RunResult, RunSet


def summary(runs: RunSet, *, against: RunSet | None = None) -> dict[str, Any]:
    """Counts, means and intervals over the finished runs of a set; numbers that nothing is known of are None.

    Args:
        runs: the set.
        against: a set to compare with, task by task.

    Returns:
        Counts, `return_mean` (over tasks of the mean over seeds), `iqm` and `iqm_ci95` (of all runs), the same by
        task, and by variant where there are several. Intervals are over seeds alone, never over variants.
    """
    states = [run.state for run in runs.runs]
    result: dict[str, Any] = {
        "runs": len(states),
        "finished": states.count("finished"),
        "failed": states.count("failed"),
    }
    result |= {**_of_scores(runs.scores(), runs.strata()), "out": str(runs.root)}
    result["tasks"] = {task: _of_task(runs.of(task=task), runs.strata(task=task)) for task in runs.tasks}
    if len(runs.variants) > 1:
        variants = {name: (runs.scores(name), runs.strata(variant=name)) for name in runs.variants}
        result["variants"] = {name: _of_scores(*both) for name, both in variants.items()}
    return result | (_improvement(runs.scores(), against) if against is not None else {})


def marks(runs: RunSet) -> list[int]:
    """The places of MARKS that some run has come to."""
    furthest = max((places[-1] for run in runs.runs if len(places := run.column()[0])), default=0.0)
    return [mark for mark in MARKS if mark <= furthest]


def return_at_mark(run: RunResult, mark: int) -> float:
    """A run's return at a place, by the definition of published curves; NaN where it did not come so far."""
    places, returns = run.column()
    return return_at(mark, places, returns) if len(places) and places[-1] >= mark else float("nan")


def returns_at_mark(runs: Sequence[RunResult], mark: int) -> list[float]:
    """The returns at a place of those runs that came so far."""
    return [value for run in runs if math.isfinite(value := return_at_mark(run, mark))]


def _of_scores(scores: Scores, strata: Scores) -> dict[str, Any]:
    if not scores:
        return {"return_mean": None, "iqm": None, "iqm_ci95": None, "seeds": None}
    mean, _ = aggregates.estimate(scores, aggregates.mean)
    iqm, interval = aggregates.estimate(strata, aggregates.iqm)
    return {"return_mean": mean, "iqm": iqm, "iqm_ci95": interval, "seeds": _seeds(strata)}


def _of_task(runs: list[RunResult], strata: Scores) -> dict[str, Any]:
    mean, interval = aggregates.estimate(strata, aggregates.run_mean) if strata else (None, None)
    result: dict[str, Any] = {"return_mean": mean, "return_ci95": interval, "seeds": _seeds(strata) if strata else 0}
    for mark in MARKS:
        if at := returns_at_mark(runs, mark):
            result[f"return_at_{mark}"] = float(np.mean(at))
    return result


def _seeds(strata: Scores) -> int | list[int]:
    """How many each stratum has; several numbers where they differ."""
    seeds = sorted({len(group) for group in strata.values()})
    return seeds[0] if len(seeds) == 1 else seeds


def _improvement(scores: Scores, against: RunSet) -> dict[str, Any]:
    others = against.scores()
    shared = scores.keys() & others.keys()
    probability, interval = aggregates.probability_of_improvement(scores, others) if shared else (None, None)
    names = {"probability_of_improvement": probability, "probability_of_improvement_ci95": interval}
    return {**names, "against": str(against.root)}
