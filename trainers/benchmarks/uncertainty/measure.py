"""A planted outlier: what a single model's planner makes of it, and an ensemble's with and without pessimism."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.benchmarks.shared.plots import Curve, curves
from trainers.benchmarks.uncertainty.outlier import PLACE, Promises, Reader, records, truth
from trainers.command.configuration import BadConfig
from worldmodel.planners.cem import CEM
from worldmodel.simulators.ensemble import EnsembleSimulator

OPTIONS = {"seeds": 10, "members": 8, "kappa": -1.0, "steps": 300, "out": ""}
GREY, BLUE, RED, GREEN, INK = (200, 200, 200), (31, 90, 180), (200, 60, 40), (40, 140, 70), (40, 40, 40)


def measure(overrides: list[str], *, seeds: int, members: int, kappa: float, steps: int, out: str) -> dict[str, Any]:
    """Promise, real reward and the share of seeds that took the outlier; `out` names a picture of the first seed."""
    if overrides:
        raise BadConfig(f"expected {', '.join(OPTIONS)} only, got {overrides[0]}")
    kinds = {"single": (1, 0.0), "ensemble": (members, 0.0), "ensemble, kappa": (members, kappa)}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        fitted = {count: Promises(count, seed=seed) for count in (1, members)}
        for model in fitted.values():
            model.fit(steps)
        for kind, (count, weight) in kinds.items():
            found[kind].append(_decide(fitted[count], weight, seed))
        if out and seed == 0:
            _draw(Path(out), fitted[1], fitted[members], kappa)
    rows = [
        {"planner": kind, **{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}}
        for kind, rows in found.items()
    ]
    return {"seeds": seeds, "members": members, "kappa": kappa, "rows": rows}


def _decide(model: Promises, kappa: float, seed: int) -> dict[str, float]:
    """One plan, what it promises, and what it earns."""
    world = EnsembleSimulator(simulator=Reader(), ensemble=model, particles=model.members, kappa=kappa)
    planner, generator = CEM(horizon=1, candidates=200, elites=10, iterations=6), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        plan = planner.plan(world, world.start(torch.zeros(1, 1)), generator=generator)
    return {
        "promised": plan.value.item(),
        "earned": truth(plan.action).item(),
        "exploits": float(abs(plan.action.item() - PLACE) < 0.15),
    }


def _draw(path: Path, single: Promises, ensemble: Promises, kappa: float) -> None:
    """Promises over actions, beside the truth and the records."""
    grid = torch.linspace(-1, 1, 201)[:, None]
    with torch.no_grad():
        one, all_ = (m.moments(grid, grid.expand(m.members, -1, -1))[0][..., 0] for m in (single, ensemble))
    action, reward = records()
    mean, std = all_.mean(0), all_.std(0, correction=0)

    def curve(y: Tensor, colour: tuple[int, int, int], label: str = "", width: int = 2) -> Curve:
        return Curve(grid[:, 0].tolist(), y.tolist(), colour, label, width)

    drawn = [curve(member, GREY, "members" if k == 0 else "", 1) for k, member in enumerate(all_)]
    drawn += [
        curve(truth(grid[:, 0]), INK, "truth"),
        curve(one[0], RED, "single model"),
        curve(mean, BLUE, "mean of members"),
        curve(mean + kappa * std, GREEN, f"mean {kappa:+g} std of members"),
        Curve(action[:, 0].tolist(), reward.tolist(), INK, "records", 0),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    curves(path, drawn, x_label="action", y_label="reward")
