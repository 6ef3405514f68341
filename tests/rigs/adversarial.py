"""Planner and policy calls against models that lie: how many actions are not finite or out of bounds (none is asked).

A call is one row of a batch: a problem with a model, a start, a warm start and noise of its own, or a latent in which a
policy is asked for an action.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from tests.rigs.adversarial_policies import POLICIES, attack, wrongs
from tests.rigs.adversary import ACTION, Adversary
from trainers.command.configuration import BadConfig
from trainers.command.registry import make
from worldmodel.interfaces import Plan

BUDGETS: dict[str, dict[str, Any]] = {
    "random": {"name": "random_shooting", "candidates": 12},
    "random_policy": {"name": "random_shooting", "candidates": 8, "policy_candidates": 4},
    "cem": {"name": "cem", "candidates": 12, "elites": 4, "iterations": 3},
    "cem_policy": {"name": "cem", "candidates": 8, "elites": 3, "iterations": 2, "policy_candidates": 4},
    "icem": {"name": "icem", "candidates": 12, "elites": 4, "iterations": 3},
    "seeded": {"name": "seeded", "candidates": 8, "elites": 3, "iterations": 2, "policy_candidates": 4},
    "icem_policy": {"name": "icem", "candidates": 8, "elites": 3, "iterations": 2, "policy_candidates": 4},
    "mppi": {"name": "mppi", "candidates": 12, "elites": 6, "iterations": 3},
    "mppi_policy": {"name": "mppi", "candidates": 8, "elites": 4, "iterations": 2, "policy_candidates": 4},
    "gradient": {"name": "gradient", "candidates": 3, "iterations": 3, "policy_candidates": 1},
    "cem_gradient": {"name": "cem_gradient", "candidates": 8, "elites": 3, "iterations": 2, "refined": 2, "steps": 2},
    "ilqr": {"name": "ilqr", "iterations": 2, "policy_candidates": 1},
    "uct": {"name": "uct", "iterations": 10},
    "uct_policy": {"name": "uct", "iterations": 10, "policy_candidates": 1},
    "gumbel": {"name": "gumbel", "iterations": 8, "samples": 4, "considered": 4, "policy_candidates": 2},
    "ensemble": {
        **{"name": "ensemble", "search": "cem", "particles": 2, "kappa": -0.5, "noisy": True},
        **{"candidates": 8, "elites": 3, "iterations": 2, "policy_candidates": 2},
    },
    "ensemble_ts1": {
        **{"name": "ensemble", "search": "icem", "particles": 4, "resample": True, "kappa": 1.0, "bonus": 1.0},
        **{"candidates": 8, "elites": 3, "iterations": 2},
    },
}


def measure(*, calls: int = 1_000_000, rows: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Counts over `calls` calls of planners, shared equally, and a tenth as many of policies, in batches of `rows`."""
    if min(calls, rows) < 1:
        raise BadConfig(f"calls and rows: expected at least 1, got {calls} and {rows}")
    share = math.ceil(calls / len(BUDGETS))
    found = []
    for name in BUDGETS:
        found.append(_attack(name, share, rows, seed))
        print(", ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    policies = [attack(name, math.ceil(calls / 10 / len(POLICIES)), rows, seed) for name in POLICIES]
    for row in policies:
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    totals = {key: sum(row[key] for row in found) for key in ("calls", "plans", "values")}
    wrong = {key: sum(row[key] for row in [*found, *policies]) for key in ("nonfinite", "out_of_bounds")}
    asked = sum(row["calls"] for row in policies)
    return {**totals, **wrong, "policy_calls": asked, "by_planner": found, "by_policy": policies}


def _attack(name: str, calls: int, rows: int, seed: int) -> dict[str, Any]:
    """`calls` problems for one planner; horizon, warm start and noise change with every plan."""
    generator, start = torch.Generator().manual_seed(seed), time.perf_counter()
    found = {"planner": name, "calls": 0, "plans": 0, "nonfinite": 0, "out_of_bounds": 0, "values": 0}
    while found["calls"] < calls:
        count, horizon = min(rows, calls - found["calls"]), 1 + found["plans"] % 4
        planner = make("worldmodel.planners", {**BUDGETS[name], "horizon": horizon})
        # every second world's episodes can end; not in inference mode, where gradients could not pass it
        model = Adversary(seed=found["plans"], terminates=bool(found["plans"] % 2))
        with torch.inference_mode():
            plan = planner.plan(
                model,
                Adversary.draw(count, generator),
                warm=_warm(count, horizon, generator) if found["plans"] % 3 else None,
                generator=generator,
                deadline=time.monotonic() - 1 if found["plans"] % 20 == 19 else None,
            )
        found["calls"] += count
        found["plans"] += 1
        for key, wrong in _wrong(plan).items():
            found[key] += wrong
    return {**found, "seconds": round(time.perf_counter() - start, 1)}


def _warm(rows: int, horizon: int, generator: torch.Generator) -> Tensor:
    """Warm starts, a fifth of their numbers nonsense."""
    warm = torch.randn(rows, horizon, ACTION, generator=generator)
    nonsense = torch.tensor([math.nan, math.inf, -math.inf, 1e38])
    drawn = nonsense[torch.randint(4, warm.shape, generator=generator)]
    return torch.where(torch.rand(warm.shape, generator=generator) < 0.2, drawn, warm)


def _wrong(plan: Plan) -> dict[str, int]:
    """Calls whose actions are not finite, or out of bounds, or whose value is NaN or +inf."""
    actions = torch.cat([plan.action[:, None], plan.mean], 1).flatten(1)
    return {
        **wrongs(actions),
        "values": int((plan.value.isnan() | (plan.value == math.inf)).sum()),
    }
