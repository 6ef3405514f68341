"""The planners of the benchmark, each with a budget that goes with a number of candidates."""

from dataclasses import dataclass
from typing import Any

from trainers.command.registry import make
from worldmodel.interfaces import Planner

SAMPLING = ("random", "cem", "icem", "mppi", "icem_eighth", "policy_seeded")  # roll out candidates without gradients
PLANNERS = (*SAMPLING, "gradient", "cem_gradient", "ilqr", "uct", "gumbel")


@dataclass(frozen=True, slots=True)
class Budget:
    """CEM with N candidates and N/10 elites; MPPI with N candidates."""

    candidates: int
    iterations: int
    horizon: int

    @property
    def elites(self) -> int:
        """Candidates that refit the Gaussian."""
        return max(2, self.candidates // 10)


def build_planner(name: str, budget: Budget) -> Planner:
    """A planner by its name here; what does not sample gets a budget of its own."""
    candidates, iterations, elites = budget.candidates, budget.iterations, budget.elites
    shape = {"horizon": budget.horizon}
    shooting = {**shape, "candidates": candidates, "iterations": iterations}
    few = max(8, candidates // 8)
    options: dict[str, dict[str, Any]] = {
        "random": {"name": "random_shooting", **shooting},
        "cem": {"name": "cem", **shooting, "elites": elites},
        "icem": {"name": "icem", **shooting, "elites": elites},
        "mppi": {"name": "mppi", **shooting, "elites": elites},
        "icem_eighth": {"name": "icem", **shape, **_coloured(candidates)},
        "policy_seeded": {"name": "seeded", **shape, **_seeded(candidates)},
        "gradient": {"name": "gradient", **shape, "candidates": 8, "iterations": iterations},
        "cem_gradient": {"name": "cem_gradient", **shooting, "candidates": few, "elites": max(2, few // 5)},
        "ilqr": {"name": "ilqr", **shape, "iterations": 3},
        "uct": {"name": "uct", **shape, "iterations": few, "levels": 2},
        "gumbel": {"name": "gumbel", **shape, "iterations": few},
    }
    return make("worldmodel.planners", options[name])


def _coloured(candidates: int) -> dict[str, Any]:
    """A twentieth of CEM's sequences, for an eighth of its time: two rounds of noise that pushes one way for long."""
    many = max(8, candidates // 4)
    return {"candidates": many, "elites": max(2, many // 32), "iterations": 2, "beta": 2.5, "keep": 0.5}


def _seeded(candidates: int) -> dict[str, Any]:
    """A tenth: ten iterations of few samples around the policy's best sequences."""
    few = max(8, candidates // 10)
    seeds = {"policy_candidates": max(8, candidates // 16)}
    return {"candidates": few, "elites": max(3, 3 * few // 10), "iterations": 10, **seeds}
