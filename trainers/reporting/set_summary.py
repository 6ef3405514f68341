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
    return result | (_improvement(runs, against) if against is not None else {})


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


def comparisons(runs: RunSet, against: RunSet) -> dict[str, tuple[Scores, Scores]]:
    """Whose final returns are compared: each variant of a set with each of the other, on the tasks that both have.

    Of a set with itself each pair of variants once, the later over the earlier.

    Returns:
        Final returns here and there by task, by "VARIANT over VARIANT"; by "" where neither set has several.
    """
    several = len(runs.variants) > 1
    itself = several and runs.root == against.root
    pairs = [
        (one, other)
        for n, one in enumerate(runs.variants)
        for other in (runs.variants[:n] if itself else against.variants)
    ]
    single = not several and len(against.variants) == 1
    found: dict[str, tuple[Scores, Scores]] = {}
    for one, other in pairs:
        scores, others = runs.scores(one), against.scores(other)
        if shared := [task for task in scores if task in others]:
            label = "" if single else f"{one or 'default'} over {other or 'default'}"
            found[label] = ({task: scores[task] for task in shared}, {task: others[task] for task in shared})
    return found


def _improvement(runs: RunSet, against: RunSet) -> dict[str, Any]:
    found = {name: aggregates.probability_of_improvement(*both) for name, both in comparisons(runs, against).items()}
    probability, interval = found.pop("", (None, None))
    names = {"probability_of_improvement": probability, "probability_of_improvement_ci95": interval}
    each = {name: {"probability": value, "ci95": ci95} for name, (value, ci95) in found.items()}
    return {**names, "against": str(against.root), **({"improvements": each} if each else {})}
