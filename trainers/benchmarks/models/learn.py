"""One family's run: a world model learned offline, then measured and acted with."""

from pathlib import Path
from typing import Any

from trainers.acting.held_out import STEPS
from trainers.benchmarks.shared import benchmark_run as kept_run

Row = dict[str, Any]
NEVER = ("evaluation.every=1000000000", "data.log_every=50", "data.save_every=100")
# given anew each time that a run goes on; what it came to is in its results
RENEWED = ("data.updates", "data.validate_every", "evaluation.final_episodes")
ERRORS = ("reward", *(f"reward_{step}" for step in STEPS), *(f"image_{step}" for step in STEPS))


def require_same(family: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> None:
    """Raise BadConfig where `folder` holds a run that `learn` would not have made, or that is past `updates`."""
    kept_run.require_same_run(folder, _settings(family, arguments), free=RENEWED)
    found = kept_run.finished(folder)
    if found is not None and found["updates"] >= updates:
        kept_run.require_same("updates", found["updates"], updates, folder)
        kept_run.require_same("episodes", len(found["returns"]), episodes, folder)


def learn(family: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> Row:
    """Learn `updates` in `folder`, go on there or read what is finished; the family's row of the table."""
    found = kept_run.finished(folder)
    if found is None or found["updates"] < updates:
        own = [f"data.updates={updates}", f"data.validate_every={updates}", f"evaluation.final_episodes={episodes}"]
        found = kept_run.play(folder, _settings(family, arguments), renewed=own)
    return _row(family, found)


def _settings(family: str, arguments: list[str]) -> list[str]:
    return [f"dynamics={family}", *arguments, *NEVER]


def _row(family: str, found: dict[str, Any]) -> Row:
    errors = {name: found["held_out"].get(name) for name in ERRORS}
    spent = found["time"].get("update", 0.0)
    return {
        "family": family,
        "updates": found["updates"],
        **errors,
        "return": found["return_mean"],
        "returns": found["returns"],
        "update_ms": 1e3 * spent / max(found["updates"], 1),
    }
