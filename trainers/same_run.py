"""Whether a run folder holds the run that is asked for, before it is read or continued as that run."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trainers.configuration import BadConfig, read_yaml

# where a run lies, which says nothing of what it is
PLACES = ("run_dir", "resume")


def require_same_run(folder: Path, wanted: Mapping[str, Any], *, free: Collection[str] = ()) -> None:
    """Raise BadConfig for the first setting of `wanted` that the run in `folder` was not made with.

    free: dotted keys that may differ, since the run can be continued with other values. Drawing that was left to the
    machine may have come out either way.
    """
    saved, asked = _leaves(read_yaml(folder / "config.yaml")), _leaves(wanted)
    if asked.get("task.env.look") == "auto":
        free = [*free, "task.env.look"]
    for key in sorted({*saved, *asked} - {*PLACES, *free}):
        before, now = (found.get(key, "nothing") for found in (saved, asked))
        if before != now:
            raise BadConfig(f"{key}: expected {before} as in the run in {folder}, got {now}; or name another folder")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found = {}
    for name, value in tree.items():
        inner = _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        found |= inner
    return found
