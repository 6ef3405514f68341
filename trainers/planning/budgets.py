"""The planners of the benchmark, each with a budget that goes with a number of candidates."""

from typing import Any

from trainers.components import make
from worldmodel.interfaces import Planner


def build_planner(name: str, *, candidates: int, iterations: int, horizon: int) -> Planner:
    """A planner by its name here. CEM with N candidates, N/10 elites; what does not sample gets a budget of its own."""
    elites, shape = max(2, candidates // 10), {"horizon": horizon}
    shooting = {**shape, "candidates": candidates, "iterations": iterations}
    few = max(8, candidates // 8)
    options: dict[str, dict[str, Any]] = {
        "random": {"name": "random_shooting", **shooting},
        "cem": {"name": "cem", **shooting, "elites": elites},
        "icem": {"name": "icem", **shooting, "elites": elites},
        "mppi": {"name": "mppi", **shooting, "elites": elites},
        "policy": {"name": "icem", **shape, **SEEDED, "candidates": few, "policy_candidates": few},
        "gradient": {"name": "gradient", **shape, "candidates": 8, "iterations": iterations},
        "cem_gradient": {"name": "cem_gradient", **shooting, "candidates": few, "elites": max(2, few // 5)},
        "ilqr": {"name": "ilqr", **shape, "iterations": 3},
        "uct": {"name": "uct", **shape, "iterations": few, "levels": 2},
        "gumbel": {"name": "gumbel", **shape, "iterations": few},
    }
    return make("worldmodel.planners", options[name])


PLANNERS = ("random", "cem", "icem", "mppi", "policy", "gradient", "cem_gradient", "ilqr", "uct", "gumbel")
SEEDED = {"elites": 8, "iterations": 4}
