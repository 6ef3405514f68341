"""Runs that a benchmark keeps in folders: refused where they are other ones, else begun, gone on with, or read."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from trainers import fit
from trainers.command.configuration import BadConfig, load_config, read_yaml
from trainers.run_folder.read import leaves

# where a run lies, which says nothing of what it is
PLACES = ("run_dir", "resume")


def require_same_run(folder: Path, words: Sequence[str], *, free: Collection[str] = ()) -> None:
    """Raise BadConfig for the first setting of the overrides `words` that a run in `folder` was not made with.

    free: dotted keys that may differ, since the run can be continued with other values. Drawing that was left to the
    machine may have come out either way.
    """
    wanted = leaves(load_config(list(words)))
    if not _begun(folder):
        return
    saved = leaves(read_yaml(folder / "config.yaml"))
    if wanted.get("task.env.look") == "auto":
        free = [*free, "task.env.look"]
    if wanted.get("agent.continuation") == "auto":
        free = [*free, "agent.continuation"]
    for key in sorted({*saved, *wanted} - {*PLACES, *free}):
        require_same(key, saved.get(key, "nothing"), wanted.get(key, "nothing"), folder)


def require_same(key: str, before: Any, now: Any, folder: Path) -> None:
    """Raise BadConfig where what is asked for differs from what the run in `folder` has."""
    if before != now:
        raise BadConfig(f"{key}: expected {before} as in the run in {folder}, got {now}; or name another folder")


def finished(folder: Path) -> dict[str, Any] | None:
    """The results of a run that was played to its end."""
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    return results if results.get("status") == "finished" else None


def play(folder: Path, words: Sequence[str], *, renewed: Sequence[str] = ()) -> dict[str, Any]:
    """Begin a run by its overrides, or go on with it, both with those that are `renewed`; its results.

    Raises KeyboardInterrupt where it was stopped.
    """
    results = fit.main([*([f"resume={folder}"] if _begun(folder) else [*words, f"run_dir={folder}"]), *renewed])
    if results.get("exit_code"):
        raise KeyboardInterrupt
    return results


def _begun(folder: Path) -> bool:
    return (folder / "config.yaml").exists()
