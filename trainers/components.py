"""Find a part by name: any module of a folder with a module-level `make` can be named in a config."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any


class UnknownComponent(ValueError):
    """No module of that name in the folder, or it does not take that argument."""


def component_names(package: str) -> list[str]:
    """Modules of a package, each a possible name."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def make(package: str, options: Mapping[str, Any], **facts: Any) -> Any:
    """Build the component that `options["name"]` names from the other options and from facts such as sizes.

    Names are checked against the package's own modules: a config from a file can never import anything else.
    """
    name = str(options["name"])
    known = component_names(package)
    if name not in known:
        near = get_close_matches(name, known, n=3) or known
        raise UnknownComponent(f"{package}: no {name!r}, did you mean {', '.join(near)}?")
    build = getattr(importlib.import_module(f"{package}.{name}"), "make", None)
    if build is None:
        raise UnknownComponent(f"{package}.{name} is no component: it has no make(...)")
    arguments = {key: value for key, value in options.items() if key != "name"}
    try:
        inspect.signature(build).bind(**arguments, **facts)
    except TypeError as error:
        raise UnknownComponent(f"{package}.{name}: {error}; it takes {inspect.signature(build)}") from error
    return build(**arguments, **facts)
