"""Find a part by name: any module of a folder with a module-level `make` can be named in a config."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any


class UnknownComponent(ValueError):
    """No module of that name in the folder, or it does not take that argument."""


def component_names(package: str) -> list[str]:
    """Public modules of a package, each a possible name."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
        if not module.name.startswith("_")
    )


def make(package: str, options: Mapping[str, Any] | str, **facts: Any) -> Any:
    """Build the component that `options["name"]` names from the other options and from facts such as sizes.

    A name alone takes the component's own defaults. Names are checked against the package's own modules: a config from
    a file can never import anything else. Raises UnknownComponent.
    """
    build, arguments = _checked(package, options, facts)
    return build(**arguments, **facts)


def check(package: str, options: Mapping[str, Any] | str, **facts: Any) -> None:
    """Raise UnknownComponent where `make` would, and build nothing: for parts that another part builds."""
    _checked(package, options, facts)


def _checked(
    package: str, options: Mapping[str, Any] | str, facts: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    options = {"name": options} if isinstance(options, str) else options
    name = str(options["name"])
    known = component_names(package)
    if name not in known:
        near = get_close_matches(name, known, n=3) or known
        raise UnknownComponent(f"{package}: no {name!r}, did you mean {', '.join(near)}?")
    build = getattr(importlib.import_module(f"{package}.{name}"), "make", None)
    if build is None:
        raise UnknownComponent(f"{package}.{name} is no component: it has no make(...)")
    arguments = {key: value for key, value in options.items() if key != "name"}
    signature = inspect.signature(build)
    try:
        signature.bind(**arguments, **facts)
    except TypeError as error:
        taken = ", ".join(key for key in signature.parameters if key not in facts)
        raise UnknownComponent(f"{package}.{name}: {error}; it takes {taken}") from error
    _require_numbers(f"{package}.{name}", arguments, signature)
    return build, arguments


def _require_numbers(where: str, arguments: Mapping[str, Any], signature: inspect.Signature) -> None:
    """Raise UnknownComponent for a text where the default is a number."""
    for key, value in arguments.items():
        parameter = signature.parameters.get(key)
        default = None if parameter is None else parameter.default
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise UnknownComponent(f"{where} {key}: expected a number such as {default}, got {value!r}")
