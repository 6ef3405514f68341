"""Faults on purpose: kills of whole runs, every file operation failed once, damaged files, failing workers."""

import tempfile
from pathlib import Path
from typing import Any

from tests.rigs import flips as flip_runs
from tests.rigs import io_points
from tests.rigs import kills as kill_runs
from tests.rigs import workers as worker_runs


def measure(*, kills: int = 200, flips: int = 1000, workers: int = 50, seed: int = 0) -> dict[str, Any]:
    """All fault runs one after the other, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="fault_runs_") as name:
        folder = Path(name)
        results = kill_runs.run(folder / "kills", kills=kills, seed=seed)
        results |= io_points.run(folder / "io")
        results |= worker_runs.run(count=workers)
        return results | flip_runs.run(folder / "flips", flips=flips, seed=seed)
