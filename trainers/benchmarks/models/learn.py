"""One dynamics' run: a world model learned offline, then measured and acted with."""

from pathlib import Path
from typing import Any

from trainers.acting.held_out import STEPS
from trainers.benchmarks.shared import benchmark_run

Row = dict[str, Any]
NEVER = ("evaluation.every=1000000000", "data.log_every=50", "data.save_every=100")
# given anew each time that a run goes on; what it came to is in its results
RENEWED = ("data.updates", "data.validate_every", "evaluation.final_episodes")
ERRORS = ("reward", *(f"reward_{step}" for step in STEPS), *(f"image_{step}" for step in STEPS))


def require_same(dynamics: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> None:
    """Raise BadConfig where `folder` holds a run that `learn` would not have made, or that is past `updates`."""
    benchmark_run.require_same_words(folder, _settings(dynamics, arguments), free=RENEWED)
    results = benchmark_run.finished(folder)
    if results is not None and results["updates"] >= updates:
        benchmark_run.require_same("updates", results["updates"], updates, folder)
        benchmark_run.require_same("episodes", len(results["returns"]), episodes, folder)


def learn(dynamics: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> Row:
    """Learn `updates` in `folder`, go on there or read what is finished; its row of the table."""
    results = benchmark_run.finished(folder)
    if results is None or results["updates"] < updates:
        own = [f"data.updates={updates}", f"data.validate_every={updates}", f"evaluation.final_episodes={episodes}"]
        results = benchmark_run.play(folder, _settings(dynamics, arguments), renewed=own)
    return _row(dynamics, results)


def _settings(dynamics: str, arguments: list[str]) -> list[str]:
    return [f"dynamics={dynamics}", *arguments, *NEVER]


def _row(dynamics: str, results: dict[str, Any]) -> Row:
    errors = {name: results["held_out"].get(name) for name in ERRORS}
    spent = results["time"].get("update", 0.0)
    return {
        "dynamics": dynamics,
        "updates": results["updates"],
        **errors,
        "return": results["return_mean"],
        "returns": results["returns"],
        "update_ms": 1e3 * spent / max(results["updates"], 1),
    }
