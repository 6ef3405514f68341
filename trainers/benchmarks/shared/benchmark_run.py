"""Runs that a benchmark keeps in folders: refused where they are other ones, else begun, gone on with, or read."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from trainers import fit
from trainers.command.configuration import load_config, run_differs
from trainers.command.same_run import require_same_run
from trainers.run_folder.read import read_results

ELSEWHERE = "or name another folder"


def require_same_words(folder: Path, words: Sequence[str], *, free: Collection[str] = ()) -> None:
    """Raise BadConfig for the first setting of the overrides `words` that a run in `folder` was not made with.

    free: dotted keys that may differ, since the run can be continued with other values.
    """
    require_same_run(folder, load_config(list(words)), words=words, hint=ELSEWHERE, free=free)


def require_same(key: str, before: Any, now: Any, folder: Path) -> None:
    """Raise BadConfig where what is asked for differs from what the run in `folder` has."""
    if before != now:
        raise run_differs(key, before, now, run=f"the run in {folder}", hint=ELSEWHERE)


def finished(folder: Path) -> dict[str, Any] | None:
    """The results of a run that was played to its end."""
    results = read_results(folder)
    return results if results.get("status") == "finished" else None


def play(folder: Path, words: Sequence[str], *, renewed: Sequence[str] = ()) -> dict[str, Any]:
    """Begin a run by its overrides, or go on with it, both with those that are `renewed`; its results.

    Raises KeyboardInterrupt where it was stopped.
    """
    begun = (folder / "config.yaml").exists()
    results = fit.main([*([f"resume={folder}"] if begun else [*words, f"run_dir={folder}"]), *renewed])
    if results.get("exit_code"):
        raise KeyboardInterrupt
    return results
