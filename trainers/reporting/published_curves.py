"""Published return curves from pixels, shipped as package data, with their sources."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
}


@dataclass(frozen=True)
class Curve:
    """One method's published curve on one task: arrays [N], mean and standard deviation over `seeds` runs."""

    method: str
    env_steps: NDArray[np.float64]
    return_mean: NDArray[np.float64]
    return_std: NDArray[np.float64]
    seeds: int
    source: str


def published_curves(task: str) -> list[Curve]:
    """Every published curve of a task named as in the suite (cartpole_swingup); [] for a task nobody published."""
    with SCORES.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    methods = dict.fromkeys(row["method"] for row in rows)
    return [_curve(method, [row for row in rows if row["method"] == method]) for method in methods]


def _curve(method: str, rows: list[dict[str, str]]) -> Curve:
    rows = sorted(rows, key=lambda row: float(row["env_steps"]))
    columns = ("env_steps", "return_mean", "return_std")
    env_steps, mean, std = (np.array([float(row[column] or "nan") for row in rows]) for column in columns)
    return Curve(
        method=NAMES.get(method, method),
        env_steps=env_steps,
        return_mean=mean,
        return_std=std,
        seeds=min(int(float(row["seeds"] or 0)) for row in rows),
        source=rows[0]["source"],
    )
