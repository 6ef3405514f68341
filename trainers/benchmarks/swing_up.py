"""Swing-ups of the suite by planners that know the true dynamics, which tells planner bugs from model bugs."""

from typing import Any

import numpy as np

from trainers.benchmarks.known_dynamics.cartpole import Cartpole
from trainers.benchmarks.known_dynamics.control import control
from trainers.benchmarks.known_dynamics.pendulum import Pendulum
from trainers.benchmarks.shared.options import names
from trainers.command.registry import make

MODELS = {"cartpole": Cartpole(repeat=4), "pendulum": Pendulum(repeat=2)}
BUDGETS: dict[str, dict[str, Any]] = {
    "cem": {"horizon": 25, "candidates": 128, "elites": 16, "iterations": 4, "init_std": 0.8},
    "cem_best": {"horizon": 25, "candidates": 128, "elites": 16, "iterations": 4, "init_std": 0.8},
    "icem": {"horizon": 25, "candidates": 64, "elites": 8, "iterations": 3, "beta": 1.5},
    "mppi": {"horizon": 25, "candidates": 128, "elites": 32, "iterations": 4, "init_std": 0.8},
    "gradient": {"horizon": 25, "candidates": 8, "iterations": 15, "init_std": 0.7},
    "cem_gradient": {"horizon": 25, "candidates": 64, "elites": 8, "iterations": 3, "steps": 5},
    "ilqr": {"horizon": 40, "iterations": 4},
    "random_shooting": {"horizon": 25, "candidates": 512},
    "uct": {"horizon": 12, "iterations": 64},
    "gumbel": {"horizon": 12, "iterations": 128, "samples": 8, "considered": 8},
}


def measure(
    *,
    task: str = "cartpole",
    planners: str = "cem,icem,mppi,gradient,cem_gradient,ilqr",
    episodes: int = 1,
    steps: int = 1000,
) -> dict[str, Any]:
    """Return and milliseconds per decision of every planner, with `steps` control steps an episode."""
    rows, (task,) = [], names("task", task, MODELS)
    for name in names("planners", planners, BUDGETS):
        planner = make("worldmodel.planners", {"name": name, **BUDGETS[name]})
        played = [
            control(MODELS[task], planner, domain=task, task="swingup", seed=seed, control_steps=steps)
            for seed in range(episodes)
        ]
        rows.append(
            {
                "planner": name,
                "return": float(np.mean([p.total_return for p in played])),
                "decision_ms": float(np.median([p.decision_ms for p in played])),
            }
        )
    return {"task": f"{task}_swingup", "episodes": episodes, "rows": rows}
