"""Find an environment module by name: any file in this folder with a `make(**kwargs)` is a source."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.envs.errors import BadOption, UnknownSource
from datamodules.envs.protocol import Env


def source_names() -> list[str]:
    """Module names in this folder, each a possible `source` (importing none of them)."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))


def load_source(source: str) -> ModuleType:
    """Import the module named `source` from this folder; raises UnknownSource for any other text."""
    # an allow-list, so that no name from a config or a file can import anything else
    if source not in source_names():
        raise UnknownSource(f"source: expected a module of datamodules/envs {source_names()}, got {source!r}")
    module = importlib.import_module(f"datamodules.envs.{source}")
    if not hasattr(module, "make"):
        raise UnknownSource(f"source: datamodules/envs/{source}.py has no make(**kwargs)")
    return module


def open_env(*, source: str, kwargs: dict[str, Any]) -> Env:
    """Build `source`'s environment from keyword arguments; raises UnknownSource or BadOption."""
    make = load_source(source).make
    try:
        inspect.signature(make).bind(**kwargs)
    except TypeError as error:
        raise BadOption(f"{source}.make{inspect.signature(make)}: {error}") from error
    return make(**kwargs)
