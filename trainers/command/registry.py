"""Find a part by name: any module of a folder with a module-level `make` can be named in a config."""

from collections.abc import Mapping
from typing import Any

from datamodules.parts import extend
from worldmodel import parts
from worldmodel.errors import BadFact, BadValue, UserError, naming


class UnknownComponent(UserError, ValueError):
    """No module of that name in the folder, or it does not take that argument."""


class BadOption(BadValue):
    """A component refuses the value of one of its options, which is named by its whole key."""


class DoesNotFit(BadValue):
    """A component cannot be built for a fact that no configuration decides; the component is named by its whole key."""


def make(package: str, options: parts.Options, *, key: str = "", **facts: Any) -> Any:
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
    make, arguments = _chosen(package, options, facts, key)
    try:
        parts.require_numbers(make, arguments)
        return make(**arguments, **facts)
    except BadValue as error:
        # what a component within this one refuses has its whole key already, as has everything where there is no key
        if not key or type(error) not in (BadValue, BadFact):
            raise
        if type(error) is BadFact:
            name = options if isinstance(options, str) else options["name"]
            raise DoesNotFit(f"{key}={name}: {error}") from error
        raise BadOption(f"{key}.{error}") from error


def check(package: str, options: parts.Options, *, key: str, **facts: Any) -> None:
    """Raise UnknownComponent where `make` would, and build nothing: for parts that another part builds."""
    make, arguments = _chosen(package, options, facts, key)
    try:
        parts.require_numbers(make, arguments)
    except BadValue as error:
        raise BadOption(f"{key}.{error}") from error


def accepted(package: str, options: Mapping[str, Any], *, key: str) -> set[str] | None:
    """Names of the options that a component takes, facts included; None where it takes any.

    Args:
        package: the components' folder.
        options: the component's name, and what else is chosen: it can say where options are passed on to.
        key: where they stand in the configuration, for messages.

    Raises:
        UnknownComponent: no such name.
    """
    extend(package.partition(".")[0])
    try:
        make = parts.find(package, options["name"], key=f"{key}.name")
        takes = parts.options_of(make)
        names, passed_on = parts.named(takes), getattr(make, "passed_on", None)
        if len(names) == len(takes):
            return names
        with naming(key):
            return None if passed_on is None else names | passed_on(options)
    except BadValue as error:
        raise UnknownComponent(str(error)) from error


def _chosen(
    package: str, options: parts.Options, facts: Mapping[str, Any], key: str
) -> tuple[parts.Make, dict[str, Any]]:
    extend(package.partition(".")[0])
    try:
        return parts.chosen(package, options, facts, key=key or package)
    except BadValue as error:
        raise UnknownComponent(str(error)) from error
