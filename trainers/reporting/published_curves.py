"""Published return curves from pixels, shipped as package data, with their sources.

One definition of "the return at x env_steps" serves all of them and every run beside them: the mean of what was
measured in the trailing window (x - 20,000, x], training episodes or evaluations, whatever a method published.
Nothing that came after x is in it.
"""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.reporting.charts import Series

SCORES = Path(__file__).parents[1] / "data" / "dmc_pixels_scores.csv"
NAMES = {
    "dreamerv3": "DreamerV3",
    "mrq": "MR.Q",
    "drqv2": "DrQ-v2",
    "curl": "CURL",
    "sac": "SAC",
    "ppo": "PPO",
    "tdmpc2": "TD-MPC2",
    "dr.q": "DR.Q",
    "dreamerv2": "DreamerV2",
    "drq_jaxrl": "DrQ",
    "drq_jaxrl_resets": "DrQ with resets",
}
TRAILING_WINDOW = 20_000  # env_steps
MARKS = (50_000, 100_000, 200_000, 500_000)  # env_steps at which runs and published returns are compared
SHORTEST_AXIS = 50_000  # the curves begin at 25k env_steps: a shorter run is still drawn beside them
ACTION_REPEAT = 2  # of the methods whose name says no other


@dataclass(frozen=True)
class Curve:
    """One method's published curve on one task: arrays [N], the mean over `seeds` runs."""

    method: str
    env_steps: NDArray[np.float64]
    return_mean: NDArray[np.float64]
    seeds: int
    source: str
    action_repeat: int = ACTION_REPEAT

    def at(self, env_steps: float) -> float:
        """The return at a place of the table, NaN where it has none there: nothing is interpolated."""
        (places,) = np.nonzero(self.env_steps == env_steps)
        return float(self.return_mean[places[0]]) if len(places) else float("nan")


def published_curves(task: str) -> list[Curve]:
    """Every published curve of a task named as in the suite (cartpole_swingup); [] for a task nobody published."""
    rows = [row for row in _rows() if row["task"] == task]
    methods = dict.fromkeys(row["method"] for row in rows)
    return [_curve(method, [row for row in rows if row["method"] == method]) for method in methods]


def published_series(
    curves: Sequence[Curve], last: float, *, label: Callable[[Curve], str]
) -> tuple[list[Series], float | None]:
    """Published curves as grey lines beside runs that come to `last` env_steps, and where the axis ends."""
    x_max = max(last, SHORTEST_AXIS) if curves else last or None
    shown = [curve for curve in curves if x_max is None or curve.env_steps[0] <= x_max]
    return [Series(label(curve), curve.env_steps, curve.return_mean, "reference") for curve in shown], x_max


def last_mark(env_steps: float) -> int:
    """The last of MARKS that a run of this length comes to, 0 before the first."""
    return max((mark for mark in MARKS if mark <= env_steps), default=0)


def best_published(task: str, env_steps: float, *, action_repeat: int) -> tuple[str, float] | None:
    """The best method of a task at a place of the table and its mean return; None where nobody published one.

    Methods with this action repeat are compared, or those with the usual 2 where there is none.
    """
    at = [(curve, curve.at(env_steps)) for curve in published_curves(task)]
    known = [(curve, value) for curve, value in at if np.isfinite(value)]
    same = [one for one in known if one[0].action_repeat == action_repeat]
    fitting = same or [one for one in known if one[0].action_repeat == ACTION_REPEAT]
    if not fitting:
        return None
    curve, value = max(fitting, key=lambda one: one[1])
    return curve.method, value


def return_at(env_steps: float, places: NDArray[np.float64], returns: NDArray[np.float64]) -> float:
    """A run's return at x by the definition above, from returns [N] measured at places [N]; NaN where none was."""
    within = (places > env_steps - TRAILING_WINDOW) & (places <= env_steps) & np.isfinite(returns)
    return float(returns[within].mean()) if within.any() else float("nan")


@cache
def _rows() -> list[dict[str, str]]:
    with SCORES.open(newline="") as file:
        return list(csv.DictReader(file))


def _curve(method: str, rows: list[dict[str, str]]) -> Curve:
    rows = sorted(rows, key=lambda row: float(row["env_steps"]))
    columns = ("env_steps", "return_mean")
    env_steps, mean = (np.array([float(row[column] or "nan") for row in rows]) for column in columns)
    name, repeat = re.fullmatch(r"(.+?)(?:_ar(\d+))?", method).groups()  # type: ignore[union-attr]
    return Curve(
        method=NAMES.get(name, name) + (f", action repeat {repeat}" if repeat else ""),
        env_steps=env_steps,
        return_mean=mean,
        seeds=min(int(float(row["seeds"] or 0)) for row in rows),
        source=rows[0]["source"],
        action_repeat=int(repeat or ACTION_REPEAT),
    )
