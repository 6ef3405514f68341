"""Parts from outside the tree: folders that mirror it, whose modules are found beside the built-in ones.

A folder may have `worldmodel/`, `datamodules/`, `configs/` and `trainers/` (for engines) in it, as here:
`parts=~/mine` finds `~/mine/worldmodel/planners/halving.py` and `~/mine/configs/planner/halving.yaml`. The folders are
kept in an environment variable, so that environment workers and other ranks find the same parts.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from worldmodel.errors import UserError

VARIABLE = "WORLDMODEL_PARTS"
ROOT = Path(__file__).absolute().parents[1]
TREES = ("worldmodel", "datamodules", "configs", "trainers")

_found_in: list[Path] = []  # the last folders that were named in this process


class PartsMissing(UserError):
    """A folder of parts that is not there, or has none in it."""


def activate(folders: Sequence[str | Path]) -> None:
    """Look for parts in these folders too, from now on, in this process and in those that it starts.

    Args:
        folders: each mirrors this project's tree; earlier ones go first. Parts of folders that were named before give
            way to these; where none are named, what this process has found stays.

    Raises:
        PartsMissing: names the folder in which there are none.
    """
    paths = [Path(folder).expanduser().absolute() for folder in folders]
    for path in paths:
        if not any((path / tree).is_dir() for tree in TREES):
            raise PartsMissing(f"parts: expected a folder with {', '.join(TREES)} in it, got {path}")
    if paths:
        if _found_in not in ([], paths):
            _forget_parts()
        _found_in[:] = paths
    os.environ[VARIABLE] = os.pathsep.join(map(str, paths))


def active() -> list[Path]:
    """The folders of parts, empty where there are none."""
    return [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]


def _forget_parts() -> None:
    """Let nothing be found any more that was: a module of the same name in another folder would be hidden by it."""
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        if file is None or name.partition(".")[0] not in TREES:
            continue
        if Path(file).is_relative_to(ROOT):
            if paths := getattr(module, "__path__", None):
                paths[1:] = []
        else:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)


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
