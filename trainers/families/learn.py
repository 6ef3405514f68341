"""One family's run: a world model learned offline, then measured and acted with."""

import json
from pathlib import Path
from typing import Any

from trainers import fit
from trainers.configuration import BadConfig, load_config
from trainers.held_out import STEPS
from trainers.same_run import require_same_run

Row = dict[str, Any]
NEVER = ("evaluation.every=1000000000", "data.log_every=50", "data.save_every=100")
# given anew each time that a run goes on; what it came to is in its results
RENEWED = ("data.updates", "data.validate_every", "evaluation.final_episodes")
ERRORS = ("reward", *(f"reward_{step}" for step in STEPS), *(f"image_{step}" for step in STEPS))


def require_same(family: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> None:
    """Raise BadConfig where `folder` holds a run that `learn` would not have made, or that is past `updates`."""
    if not (folder / "config.yaml").exists():
        return
    require_same_run(folder, load_config(_settings(family, arguments)), free=RENEWED)
    found = _finished(folder)
    if found is None or found["updates"] < updates:
        return
    asked = {"updates": (updates, found["updates"]), "episodes": (episodes, len(found["returns"]))}
    for key, (now, before) in asked.items():
        if now != before:
            raise BadConfig(f"{key}: expected {before} as in the run in {folder}, got {now}; or name another folder")


def learn(family: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> Row:
    """Learn `updates` in `folder`, go on there or read what is finished; the family's row of the table."""
    found = _finished(folder)
    if found is None or found["updates"] < updates:
        own = [f"data.updates={updates}", f"data.validate_every={updates}", f"evaluation.final_episodes={episodes}"]
        if (folder / "config.yaml").exists():
            found = fit.main([f"resume={folder}", *own])
        else:
            found = fit.main([*_settings(family, arguments), f"run_dir={folder}", *own])
        if found.get("exit_code"):
            raise KeyboardInterrupt
    return _row(family, found)


def _settings(family: str, arguments: list[str]) -> list[str]:
    return [f"dynamics={family}", *arguments, *NEVER]


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
