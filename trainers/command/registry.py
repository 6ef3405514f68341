"""Find a part by name: any module of a folder with a module-level `make` can be named in a config."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from datamodules.parts import extend
from worldmodel.errors import UserError


class UnknownComponent(UserError, ValueError):
    """No module of that name in the folder, or it does not take that argument."""


class BadOption(UserError, ValueError):
    """A component refuses the value of one of its options."""


def component_names(package: str) -> list[str]:
    """Public modules of a package, and of the same package in a folder of parts, each a possible name."""
    extend(package.partition(".")[0])
    return sorted(
        module.name
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
        if not module.name.startswith("_")
    )


def make(package: str, options: Mapping[str, Any] | str, *, key: str = "", **facts: Any) -> Any:
    """Build the component that `options["name"]` names.

    Names are checked against the package's own modules and those of parts: a config from a file can never import
    anything else.

    Args:
        package: the components' folder.
        options: the component's name, and arguments that its `make` takes; a name alone takes its own defaults.
        key: where the options stand in the configuration, for messages.
        facts: arguments that no configuration decides, such as sizes.

    Raises:
        UnknownComponent: no such name, or an argument that it does not take.
        BadOption: a value out of range.
    """
    build, arguments = _checked(package, options, facts, key)
    try:
        return build(**arguments, **facts)
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        option = name.rpartition(".")[2]
        if isinstance(error, UserError) or option not in arguments:
            raise
        raise BadOption(f"{key or package}.{option}:{rest}") from error


def check(package: str, options: Mapping[str, Any] | str, **facts: Any) -> None:
    """Raise UnknownComponent where `make` would, and build nothing: for parts that another part builds."""
    _checked(package, options, facts, "")


def accepted(package: str, options: Mapping[str, Any]) -> set[str] | None:
    """Names of the options that a component takes, facts included; None where it takes any.

    A planner that searches with another one takes that one's too.
    """
    parameters = inspect.signature(_find(package, str(options["name"]))).parameters
    names = {name for name, parameter in parameters.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
    if len(names) == len(parameters):
        return names
    inner = options.get("search")
    if inner is None or f"{package}.{inner}" == f"{package}.{options['name']}":
        return None
    others = accepted(package, {"name": inner})
    return None if others is None else names | others


def _checked(
    package: str, options: Mapping[str, Any] | str, facts: Mapping[str, Any], key: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    options = {"name": options} if isinstance(options, str) else options
    name = str(options["name"])
    build = _find(package, name)
    arguments = {option: value for option, value in options.items() if option != "name"}
    signature = inspect.signature(build)
    try:
        signature.bind(**arguments, **facts)
    except TypeError as error:
        known = ", ".join(key for key in signature.parameters if key not in facts)
        raise UnknownComponent(f"{package}.{name}: {error}; it takes {known}") from error
    _require_numbers(f"{key}." if key else f"{package}.{name} ", arguments, signature)
    return build, arguments


def _find(package: str, name: str) -> Callable[..., Any]:
    known = component_names(package)
    if name not in known:
        near = get_close_matches(name, known, n=3) or known
        raise UnknownComponent(f"{package}: no {name!r}, did you mean {', '.join(near)}?")
    from worldmodel.importing import import_part  # here, since names are looked up without torch

    build = getattr(import_part(f"{package}.{name}"), "make", None)
    if build is None:
        raise UnknownComponent(f"{package}.{name} is no component: it has no make(...)")
    return build


def _require_numbers(where: str, arguments: Mapping[str, Any], signature: inspect.Signature) -> None:
    """Raise UnknownComponent for a text where the default is a number."""
    for key, value in arguments.items():
        parameter = signature.parameters.get(key)
        default = None if parameter is None else parameter.default
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise UnknownComponent(f"{where}{key}: expected a number such as {default}, got {value!r}")
