"""Another project's modules, imported from a checkout of it."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from trainers.command.configuration import BadConfig


def import_from(folder: Path, *names: str) -> Sequence[ModuleType]:
    """Its modules, top-level ones as the project has them; raises BadConfig for what it, or its packages, lack."""
    if not folder.is_dir():
        raise BadConfig(f"checkout: expected the folder of a checkout of the peer, got {str(folder)!r}")
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        raise BadConfig(f"checkout: expected {', '.join(names)} in {folder} and its packages, got {error}") from error
    finally:
        sys.path.remove(str(folder))
