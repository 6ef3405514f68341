"""The runs that a ladder is made of: started, continued or read, and their models tried with other replanning."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainers.evaluate import main as evaluate
from trainers.fit import main as fit
from trainers.run_folder import Run, read_run


def ladder(name: str, root: Path, *, seeds: int, overrides: Sequence[str]) -> list[Run]:
    """The finished runs of experiment chapter/`name`, one for each seed."""
    return [_finished(name, root / f"{name}_{seed}", seed, overrides) for seed in range(seeds)]


def replanning(runs: Sequence[Run], every: Sequence[int], *, episodes: int) -> dict[str, list[float]]:
    """For each number of decisions between two plans, the mean return of each run's final model and planner."""
    return {str(number): [_replanned(run.run_dir, number, episodes) for run in runs] for number in every}


def _finished(name: str, folder: Path, seed: int, overrides: Sequence[str]) -> Run:
    results = folder / "results.json"
    done = results.exists() and json.loads(results.read_bytes()).get("status") == "finished"
    if not done:
        begun = (folder / "config.yaml").exists()
        words = [f"experiment=chapter/{name}", f"seed={seed}", *overrides, f"run_dir={folder}"]
        if fit([f"resume={folder}"] if begun else words).get("exit_code"):
            raise KeyboardInterrupt
    return read_run(folder)


def _replanned(folder: Path, replan: int, episodes: int) -> float:
    """Kept in the run folder: models that are finished do not change."""
    path = folder / "evaluations" / f"replan_{replan:03d}_{episodes}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        words = {"checkpoint": folder, "episodes": episodes, "agent.replan": replan}
        path.write_text(json.dumps(evaluate([f"{key}={value}" for key, value in words.items()])["returns"]))
    return float(np.mean(json.loads(path.read_bytes())))
