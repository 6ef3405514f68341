"""Folders of runs as a sweep leaves them, with numbers that a test chooses."""

import json
from pathlib import Path

import numpy as np

from trainers.sweeping.record import FORMAT


def write_run(folder: Path, *, task="walker_walk", seed=0, final=None, curve=(), settings="", **columns) -> None:
    """A run that was evaluated at curve's (env_steps, return), and finished with `final` where that is given."""
    folder.mkdir(parents=True)
    names = ["env_steps", "decisions", "updates", "seconds", "eval/return_mean", *columns]
    rows = [[x, x // 2, x, x / 10, y, *(values[i] for values in columns.values())] for i, (x, y) in enumerate(curve)]
    (folder / "metrics.csv").write_text("\n".join(",".join(map(str, row)) for row in [names, *rows]) + "\n")
    (folder / "config.yaml").write_text(f"task: {{name: {task}}}\nseed: {seed}\nrun_dir: {folder}\n{settings}")
    (folder / "spec.json").write_text(json.dumps({"task": task, "action_repeat": 2, "look": "fast"}))
    (folder / "versions.json").write_text(json.dumps({"git_commit": "0123456789", "device": "cpu"}))
    if final is not None:
        results = {"task": task, "status": "finished", "return_mean": final, "returns": [final], "look": "fast"}
        (folder / "results.json").write_text(json.dumps(results))


def write_sweep(root: Path, finals, *, variants=("",), gap=3.0) -> None:
    """A sweep of finished runs: finals[task] has the return of each seed, which every variant raises by one."""
    runs = []
    for task, returns in finals.items():
        for k, variant in enumerate(variants):
            for seed, final in enumerate(returns):
                name = "-".join(filter(None, [task, variant, f"seed={seed}"]))
                steps = np.arange(10_000, 50_001, 10_000)
                curve = [(int(x), (final + k) * x / 50_000) for x in steps]
                plans = {
                    "plan/predicted_return": [y + gap for _, y in curve],
                    "plan/realised_return": [y for _, y in curve],
                }
                write_run(root / name, task=task, seed=seed, final=final + k, curve=curve, **plans)
                runs.append(record(name, task, seed, variant, state="finished", return_mean=final + k))
    (root / "sweep.json").write_text(json.dumps({"format": FORMAT, "name": root.name, "runs": runs}))


def record(name, task, seed, variant="", **known):
    return {"name": name, "task": task, "seed": seed, "variant": variant, "overrides": [f"task={task}"], **known}


def add_record(root: Path, run: dict) -> None:
    path = root / "sweep.json"
    sweep = json.loads(path.read_text())
    path.write_text(json.dumps(sweep | {"runs": [*sweep["runs"], run]}))
