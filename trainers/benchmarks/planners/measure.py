"""Every planner and its peers, quality and milliseconds, in turns: models with known optima and a trained one."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from trainers.benchmarks.planners.budgets import PLANNERS, SAMPLING, Budget, build_planner
from trainers.benchmarks.planners.peers import BATCHED, PEERS, installed
from trainers.benchmarks.planners.problems import PROBLEMS, Problem, trained
from trainers.benchmarks.shared.options import names, numbers
from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text, write_csv

COLUMNS = ["problem", "planner", "precision", "candidates", "batch", "device", "ms", "rollout_ms", "overhead", "gap"]
DOTS = ("run", "second", "third", "fourth", "fifth", "soft")
LEAST_GAP = 1e-6  # what is better is drawn there


class ModelClock:
    """A simulator whose calls add to `seconds`; everything else of it shows through."""

    def __init__(self, simulator: Any, now: Callable[[], float]) -> None:
        self._simulator, self._now, self.seconds = simulator, now, 0.0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._simulator, name)
        if not callable(attribute) or name == "dynamics":
            return attribute

        def timed(*arguments: Any, **options: Any) -> Any:
            start = self._now()
            result = attribute(*arguments, **options)
            self.seconds += self._now() - start
            return result

        return timed


@dataclass(kw_only=True, eq=False)
class Contestant:
    """A planner in a problem, and what was measured of it. plan: from latents [B D] and a seed to actions [B H A]."""

    row: dict[str, Any]
    plan: Callable[[Tensor, int], Tensor | None]
    clock: ModelClock
    ms: list[float] = field(default_factory=list)
    model_ms: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def measure(self, problem: Problem, seed: int) -> None:
        """One call, for as many latents as the row's batch says."""
        rows = [(seed + i) % len(problem.latents) for i in range(self.row["batch"])]
        self.clock.seconds, start = 0.0, time.thread_time()
        actions = self.plan(problem.latents[rows], seed)
        self.ms.append(1e3 * (time.thread_time() - start))
        self.model_ms.append(1e3 * self.clock.seconds)
        if actions is not None:
            self.gaps += [problem.gap(index, actions[i : i + 1]) for i, index in enumerate(rows)]

    def result(self) -> dict[str, Any]:
        """Medians; rollout_ms is what of ms was spent in the model, overhead the rest over that."""
        ms, rollout = median(self.ms), median(self.model_ms)
        overhead = median(a / b - 1 for a, b in zip(self.ms, self.model_ms, strict=True)) if rollout else None
        gap = median(self.gaps) if self.gaps else None
        return {**self.row, "ms": ms, "rollout_ms": rollout, "overhead": overhead, "gap": gap}


def measure(
    *,
    planners: str = ",".join(PLANNERS),
    peers: str = "installed",
    problems: str = "reference,quadratic,pendulum",
    candidates: str = "1000,32",
    batches: str = "1",
    precisions: str = "float32,bfloat16",
    iterations: int = 10,
    repeats: int = 3,
    checkpoint: str = "",
    out: str = "",
) -> dict[str, Any]:
    """Each planner `repeats` times with other seeds, all in turns; milliseconds of CPU time for all of a batch."""
    chosen = {
        "planners": names("planners", planners, PLANNERS),
        "peers": installed() if peers == "installed" else names("peers", peers, PEERS),
        "precisions": names("precisions", precisions, ("float32", "bfloat16")),
    }
    rows = []
    known = [PROBLEMS[name]() for name in names("problems", problems, PROBLEMS)]
    for problem in [*known, trained(Path(checkpoint))] if checkpoint else known:
        for count, batch in product(numbers("candidates", candidates), numbers("batches", batches)):
            rows += _compare(problem, chosen, Budget(count, iterations, problem.horizon), batch, repeats)
    print(as_text(rows, COLUMNS), flush=True)
    if out:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "planners.csv", rows, COLUMNS)
        (folder / "planners.txt").write_text(as_text(rows, COLUMNS) + "\n")
        _draw(folder / "planners.png", rows)
    return {"rows": rows, "iterations": iterations, "repeats": repeats, "device": "cpu"}


def _compare(
    problem: Problem, chosen: dict[str, list[str]], budget: Budget, batch: int, repeats: int
) -> list[dict[str, Any]]:
    facts = {"candidates": budget.candidates, "batch": batch, "device": "cpu"}
    entered = []
    if "float32" in chosen["precisions"]:
        entered += [_planner(name, problem, budget, "float32", facts) for name in chosen["planners"]]
    if "bfloat16" in chosen["precisions"] and problem.low is not None:
        sampling = [name for name in chosen["planners"] if name in SAMPLING]
        entered += [_planner(name, problem, budget, "bfloat16", facts) for name in sampling]
    peers = [name for name in chosen["peers"] if batch == 1 or name in BATCHED]
    entered += [_peer(name, problem, budget, facts) for name in peers]
    for seed in range(-1, repeats):  # the first is warm-up
        for one in entered:
            one.measure(problem, max(seed, 0))
            if seed < 0:
                one.ms, one.model_ms, one.gaps = [], [], []
    return [one.result() for one in entered]


def _planner(name: str, problem: Problem, budget: Budget, precision: str, facts: dict[str, Any]) -> Contestant:
    planner = build_planner(name, budget)
    clock = ModelClock(problem.simulator if precision == "float32" else problem.low, time.thread_time)

    def plan(latent: Tensor, seed: int) -> Tensor:
        with torch.inference_mode():
            return planner.plan(clock, latent, generator=torch.Generator().manual_seed(seed)).mean.clone()

    row = {"problem": problem.name, "planner": name, "precision": precision, **facts}
    return Contestant(row=row, plan=plan, clock=clock)


def _peer(name: str, problem: Problem, budget: Budget, facts: dict[str, Any]) -> Contestant:
    clock = ModelClock(problem.simulator, time.thread_time)
    row = {"problem": problem.name, "planner": f"peer:{name}", "precision": "float32", **facts}
    return Contestant(row=row, plan=PEERS[name](clock, budget), clock=clock)


def _draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Milliseconds against the share of the gain that is missed, a colour for each problem."""
    figure, axes = new_figure(size=(8.0, 5.5))
    shown = [row for row in rows if row["gap"] is not None and row["ms"] > 0]
    for problem, colour in zip(dict.fromkeys(row["problem"] for row in shown), DOTS, strict=False):
        own = [row for row in shown if row["problem"] == problem]
        gaps = [max(row["gap"], LEAST_GAP) for row in own]
        axes.scatter([row["ms"] for row in own], gaps, color=COLOURS[colour], label=problem, s=22)
        for row, gap in zip(own, gaps, strict=True):
            offset = {"xytext": (5, -3), "textcoords": "offset points", "fontsize": 7}
            label = f"{row['planner']} {row['candidates']}{' bf16' if row['precision'] == 'bfloat16' else ''}"
            axes.annotate(label, (row["ms"], gap), color=COLOURS[colour], **offset)
    axes.set(xscale="log", yscale="log", xlabel="milliseconds", ylabel="share of the gain missed")
    if shown:
        axes.legend(frameon=False, fontsize=8)
    save(figure, path)
