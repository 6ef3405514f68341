"""The runs of the chapter's versions: started, continued or read, and their models tried with other replanning."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainers.benchmarks.shared.benchmark_run import finished, play, require_same_words
from trainers.evaluate import main as evaluate
from trainers.run_folder.read import Run, read_run


def version_runs(names: Sequence[str], root: Path, *, seeds: int, overrides: Sequence[str]) -> dict[str, list[Run]]:
    """The finished runs of each experiment chapter/`name`, one for each seed.

    Raises BadConfig, before anything is run, where a folder in `root` holds a run with other settings.
    """
    settings = {
        (name, seed): [f"experiment=chapter/{name}", f"seed={seed}", *overrides]
        for name in names
        for seed in range(seeds)
    }
    for (name, seed), words in settings.items():
        require_same_words(root / f"{name}_{seed}", words)
    return {name: [_finished(root / f"{name}_{seed}", settings[name, seed]) for seed in range(seeds)] for name in names}


def replanning(runs: Sequence[Run], every: Sequence[int], *, episodes: int) -> dict[str, list[float]]:
    """For each number of decisions between two plans, the mean return of each run's final model and planner."""
    return {str(number): [_replanned(run.run_dir, number, episodes) for run in runs] for number in every}


def _finished(folder: Path, words: Sequence[str]) -> Run:
    if finished(folder) is None:
        play(folder, words)
    return read_run(folder)


def _replanned(folder: Path, replan: int, episodes: int) -> float:
    """Kept in the run folder: models that are finished do not change."""
    path = folder / "evaluations" / f"replan_{replan:03d}_{episodes}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        words = {"checkpoint": folder, "episodes": episodes, "agent.replan": replan}
        path.write_text(json.dumps(evaluate([f"{key}={value}" for key, value in words.items()])["returns"]))
    return float(np.mean(json.loads(path.read_bytes())))
