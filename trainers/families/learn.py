"""One family's run: a world model learned offline, then measured and acted with."""

import json
from pathlib import Path
from typing import Any

from trainers import fit
from trainers.held_out import STEPS

Row = dict[str, Any]
ERRORS = ("reward", *(f"reward_{step}" for step in STEPS), *(f"image_{step}" for step in STEPS))


def learn(family: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> Row:
    """Learn `updates` in `folder`, go on there or read what is finished; the family's row of the table."""
    found = _finished(folder)
    if found is None or found["updates"] < updates:
        own = [f"data.updates={updates}", f"data.validate_every={updates}", f"evaluation.final_episodes={episodes}"]
        if (folder / "config.yaml").exists():
            found = fit.main([f"resume={folder}", *own])
        else:
            never = ["evaluation.every=1000000000", "data.log_every=50", "data.save_every=100", f"run_dir={folder}"]
            found = fit.main([f"dynamics={family}", *arguments, *never, *own])
        if found.get("exit_code"):
            raise KeyboardInterrupt
    return _row(family, found)


def _finished(folder: Path) -> dict[str, Any] | None:
    path = folder / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("status") == "finished" else None


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
