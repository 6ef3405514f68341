"""A planted outlier: what a single model's planner makes of it, and an ensemble's with and without pessimism."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.benchmarks.uncertainty.outlier import PLACE, RewardIsLatent, RewardMembers, records, truth
from trainers.reporting.charts import Series, line_chart, save
from worldmodel.planners.cem import CEM
from worldmodel.simulators.ensemble import EnsembleSimulator


def measure(
    *, seeds: int = 10, members: int = 8, kappa: float = -1.0, steps: int = 300, out: str = ""
) -> dict[str, Any]:
    """Predicted and real reward, and the share of seeds that took the outlier; `out` names a picture of the first."""
    kinds = {"single": (1, 0.0), "ensemble": (members, 0.0), "ensemble, kappa": (members, kappa)}
    plans: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        fitted = {count: RewardMembers(count, seed=seed) for count in (1, members)}
        for model in fitted.values():
            model.fit(steps)
        for kind, (count, weight) in kinds.items():
            plans[kind].append(_decide(fitted[count], weight, seed))
        if out and seed == 0:
            _draw(Path(out), fitted[1], fitted[members], kappa)
    rows = [
        {"planner": kind, **{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}}
        for kind, rows in plans.items()
    ]
    return {"seeds": seeds, "members": members, "kappa": kappa, "rows": rows}


def _decide(model: RewardMembers, kappa: float, seed: int) -> dict[str, float]:
    """One plan, the reward that it predicts, and what it earns."""
    world = EnsembleSimulator(simulator=RewardIsLatent(), ensemble=model, particles=model.members, kappa=kappa)
    planner, generator = CEM(horizon=1, candidates=200, elites=10, iterations=6), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        plan = planner.plan(world, world.start(torch.zeros(1, 1)), generator=generator)
    return {
        "predicted": plan.value.item(),
        "earned": truth(plan.action).item(),
        "exploits": float(abs(plan.action.item() - PLACE) < 0.15),
    }


def _draw(path: Path, single: RewardMembers, ensemble: RewardMembers, kappa: float) -> None:
    """Predicted rewards over actions, beside the truth and the records."""
    grid = torch.linspace(-1, 1, 201)[:, None]
    with torch.no_grad():
        one, all_ = (m.moments(grid, grid.expand(m.members, -1, -1))[0][..., 0] for m in (single, ensemble))
    action, reward = records()
    mean, std = all_.mean(0), all_.std(0, correction=0)

    def curve(label: str, y: Tensor, colour: str) -> Series:
        return Series(label, grid[:, 0].double().numpy(), y.double().numpy(), colour)

    drawn = [curve("members" if k == 0 else "", member, "reference") for k, member in enumerate(all_)]
    drawn += [
        curve("truth", truth(grid[:, 0]), "ink"),
        curve("single model", one[0], "fifth"),
        curve("mean of members", mean, "run"),
        curve(f"mean {kappa:+g} std of members", mean + kappa * std, "third"),
        Series("", action[:, 0].double().numpy(), reward.double().numpy(), "ink", style="."),
    ]
    save(line_chart(drawn, x_label="action", y_label="reward (dots: records)"), path)
