"""Find an environment and its visual options by module name.

Any file in this folder with a `make(**kwargs)` is a source, any file in visuals/ with a `make(env, **options)` is an
option.
"""

import difflib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.envs.errors import BadOption, EnvError, UnknownSource
from datamodules.envs.protocol import Env

_FOLDER = Path(__file__).parent


def source_names() -> list[str]:
    """Module names in this folder, each a possible `source` (importing none of them)."""
    return _modules(_FOLDER)


def visual_names() -> list[str]:
    """Module names in visuals/, each a visual option."""
    return _modules(_FOLDER / "visuals")


def load_source(source: str) -> ModuleType:
    """Import the module named `source` from this folder; raises UnknownSource for any other text."""
    # an allow-list, so that no name from a config or a file can import anything else
    if source not in source_names():
        raise UnknownSource(f"source: expected a module of datamodules/envs {source_names()}, got {source!r}")
    module = importlib.import_module(f"datamodules.envs.{source}")
    if not hasattr(module, "make"):
        raise UnknownSource(f"source: datamodules/envs/{source}.py has no make(**kwargs)")
    return module


def open_env(*, source: str, kwargs: Mapping[str, Any], visuals: Mapping[str, Mapping[str, Any]] | None = None) -> Env:
    """Build `source`'s environment from keyword arguments, seen through `visuals`; raises UnknownSource or BadOption.

    visuals: options by name, {} for an option's defaults, applied in their order; `spec.visuals` says which they were.
    """
    make = load_source(source).make
    try:
        inspect.signature(make).bind(**kwargs)
    except TypeError as error:
        raise BadOption(f"{source}.make{inspect.signature(make)}: {error}") from error
    env = make(**kwargs)
    try:
        for name, options in (visuals or {}).items():
            env = _see_through(env, name, options)
    except EnvError:
        env.close()
        raise
    return env


def _see_through(env: Env, name: str, options: Mapping[str, Any]) -> Env:
    names = visual_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise BadOption(f"visuals: expected {', '.join(near)}; got {name!r}")
    make = importlib.import_module(f"datamodules.envs.visuals.{name}").make
    signature = inspect.signature(make)
    try:
        bound = signature.bind(env, **options)
    except TypeError as error:
        raise BadOption(f"visuals.{name}: {error}; it takes {signature}, got {options!r}") from error
    seen = make(env, **options)
    bound.apply_defaults()
    _, *arguments = bound.arguments.items()
    # through JSON, so that the record equals the one that comes back from a file
    record = json.loads(json.dumps(dict(arguments)))
    seen.spec = replace(seen.spec, visuals={**seen.spec.visuals, name: record})
    return seen


def _modules(folder: Path) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
