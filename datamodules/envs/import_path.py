"""Import paths that a user's configuration names: `package.module:function`."""

import importlib
from collections.abc import Callable
from typing import Any

from datamodules.envs.errors import UnknownTask


def is_import_path(task: str) -> bool:
    """Whether a task is `package.module:function`, and no registered name such as `module:Name-v0`."""
    module, _, name = task.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_callable(path: str) -> Callable[..., Any]:
    """What `package.module:function` names; raises UnknownTask, and whatever the module's own code raises.

    Only for paths from a user's configuration or command line, never for one out of a file of data.
    """
    if not is_import_path(path):
        raise UnknownTask(f"task: expected package.module:function, got {path!r}")
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing != module_name and not module_name.startswith(f"{missing}."):
            raise UnknownTask(f"task: {path} needs the module {missing!r}, which is not installed") from error
        raise UnknownTask(
            f"task: expected an importable module in {path!r}, found no {missing!r}; "
            "install its package, or name its folder in PYTHONPATH"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise UnknownTask(f"task: expected a function or class {name!r} in {module_name}, got {found!r}")
    return found
