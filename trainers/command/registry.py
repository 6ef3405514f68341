"""Find a part by name: any module of a folder with a module-level `make` can be named in a config."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from datamodules.parts import extend
from worldmodel.errors import BadFact, BadValue, UserError


class UnknownComponent(UserError, ValueError):
    """No module of that name in the folder, or it does not take that argument."""


class BadOption(BadValue):
    """A component refuses the value of one of its options, which is named by its whole key."""


class DoesNotFit(BadValue):
    """A component cannot be built for a fact that no configuration decides; the component is named by its whole key."""


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
        DoesNotFit: facts that it cannot be built for.
    """
    build, arguments = _checked(package, options, facts, key)
    try:
        return build(**arguments, **facts)
    except BadValue as error:
        # what a component within this one refuses has its whole key already, as has everything where there is no key
        if not key or type(error) not in (BadValue, BadFact):
            raise
        if type(error) is BadFact:
            name = options if isinstance(options, str) else options["name"]
            raise DoesNotFit(f"{key}={name}: {error}") from error
        raise BadOption(f"{key}.{error}") from error


def check(package: str, options: Mapping[str, Any] | str, *, key: str, **facts: Any) -> None:
    """Raise UnknownComponent where `make` would, and build nothing: for parts that another part builds."""
    _checked(package, options, facts, key)


def accepted(package: str, options: Mapping[str, Any], *, key: str) -> set[str] | None:
    """Names of the options that a component takes, facts included; None where it takes any.

    A planner that searches with another one takes that one's too; `key` is where the name stands, for messages.
    """
    parameters = inspect.signature(_find(package, str(options["name"]), key)).parameters
    names = {name for name, parameter in parameters.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
    if len(names) == len(parameters):
        return names
    inner = options.get("search")
    if inner is None or f"{package}.{inner}" == f"{package}.{options['name']}":
        return None
    others = accepted(package, {"name": inner}, key=key.replace("name", "search"))
    return None if others is None else names | others


def _checked(
    package: str, options: Mapping[str, Any] | str, facts: Mapping[str, Any], key: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    named = (key or package) + ("" if isinstance(options, str) else ".name")
    options = {"name": options} if isinstance(options, str) else options
    name = str(options["name"])
    build = _find(package, name, named)
    arguments = {option: value for option, value in options.items() if option != "name"}
    signature = inspect.signature(build)
    try:
        signature.bind(**arguments, **facts)
    except TypeError as error:
        known = ", ".join(option for option in signature.parameters if option not in facts)
        raise UnknownComponent(f"{key or package}={name}: {error}; it takes {known}") from error
    _require_numbers(f"{key or package}.", arguments, signature)
    return build, arguments


def _find(package: str, name: str, key: str) -> Callable[..., Any]:
    from worldmodel.importing import import_part, part_names  # here, since names are looked up without torch

    if name not in component_names(package):
        near = get_close_matches(name, part_names(package), n=3) or part_names(package)
        raise UnknownComponent(f"{key}: expected one of {package}, got {name!r}, did you mean {', '.join(near)}?")

    build = getattr(import_part(f"{package}.{name}"), "make", None)
    if build is None:
        raise UnknownComponent(f"{package}.{name} is no component: it has no make(...)")
    return build


def _require_numbers(where: str, arguments: Mapping[str, Any], signature: inspect.Signature) -> None:
    """Raise BadOption for a text where the default is a number, and for what is no bool where it is one."""
    for key, value in arguments.items():
        parameter = signature.parameters.get(key)
        default = None if parameter is None else parameter.default
        if isinstance(default, bool) and not isinstance(value, bool):
            raise BadOption(f"{where}{key}: expected true or false, got {value!r}")
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise BadOption(f"{where}{key}: expected a number such as {default}, got {value!r}")
