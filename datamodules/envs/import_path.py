"""Import paths that a user's configuration names: `package.module:function`."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from datamodules.envs.errors import UnknownTask


def is_import_path(task: str) -> bool:
    """Whether a task is `package.module:function`, and no registered name such as `module:Name-v0`."""
    module, _, name = task.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_module_of(path: str) -> ModuleType:
    """The module before the colon of `path`; raises UnknownTask, and whatever the module's own code raises.

    Only for paths from a user's configuration or command line, never for one out of a file of data.
    """
    module_name = path.partition(":")[0]
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing != module_name and not module_name.startswith(f"{missing}."):
            raise UnknownTask(f"{path} needs the module {missing!r}, which is not installed") from error
        raise UnknownTask(
            f"expected an importable module in {path!r}, found no {missing!r}; "
            "install its package, or name its folder in PYTHONPATH"
        ) from error


def import_callable(path: str) -> Callable[..., Any]:
    """What `package.module:function` names; raises as `import_module_of`, which says for which paths it is."""
    if not is_import_path(path):
        raise UnknownTask(f"expected package.module:function, got {path!r}")
    module, name = import_module_of(path), path.partition(":")[2]
    named = getattr(module, name, None)
    if not callable(named):
        raise UnknownTask(f"expected a function or class {name!r} in {module.__name__}, got {named!r}")
    return named
