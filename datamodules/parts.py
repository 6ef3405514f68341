"""Parts from outside the tree: folders that mirror it, whose modules are found beside the built-in ones.

A folder may have `worldmodel/`, `datamodules/`, `configs/` and `trainers/` (for engines) in it, as here:
`parts=~/mine` finds `~/mine/worldmodel/planners/halving.py` and `~/mine/configs/planner/halving.yaml`. The folders are
kept in an environment variable, so that environment workers and other ranks find the same parts.
"""

import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from worldmodel.errors import UserError

VARIABLE = "WORLDMODEL_PARTS"
TREES = ("worldmodel", "datamodules", "configs", "trainers")


class PartsMissing(UserError):
    """A folder of parts that is not there, or has none in it."""


def activate(folders: Sequence[str | Path]) -> None:
    """Look for parts in these folders too, from now on, in this process and in those that it starts.

    Args:
        folders: each mirrors this project's tree; earlier ones go first.

    Raises:
        PartsMissing: names the folder in which there are none.
    """
    paths = [Path(folder).expanduser().absolute() for folder in folders]
    for path in paths:
        if not any((path / tree).is_dir() for tree in TREES):
            raise PartsMissing(f"parts: expected a folder with {', '.join(TREES)} in it, got {path}")
    os.environ[VARIABLE] = os.pathsep.join(map(str, paths))


def active() -> list[Path]:
    """The folders of parts, empty where there are none."""
    return [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]


def extend(package: str) -> list[str]:
    """Let a package's modules, and those of the packages in it, come from the folders of parts too.

    Args:
        package: its dotted name; it is imported.

    Returns:
        The folders in which its modules lie, the built-in one first.
    """
    paths = importlib.import_module(package).__path__
    for root in active():
        folder = root.joinpath(*package.split("."))
        if folder.is_dir() and str(folder) not in paths:
            paths.append(str(folder))
            importlib.invalidate_caches()
    for name in sorted({path.name for folder in paths[1:] for path in Path(folder).iterdir() if path.is_dir()}):
        inner = f"{package}.{name}"
        if name.isidentifier() and importlib.util.find_spec(inner) is not None:
            extend(inner)
    return list(paths)
