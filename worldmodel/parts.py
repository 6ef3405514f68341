"""Find a part by the name of its module in a folder, and build it from options; no torch here."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import ModuleType
from typing import Any

from worldmodel.errors import BadValue, did_you_mean, naming
from worldmodel.limits import require_one_of

Options = Mapping[str, Any] | str  # `name`, that of a module, and what its `make` takes; a name alone has the defaults
Make = Callable[..., Any]

_ANY = inspect.Parameter.VAR_KEYWORD


def import_part(name: str) -> ModuleType:
    """The module of that dotted name, with constants in memory also where parts are being built without any.

    Options are checked by building an agent under `torch.device("meta")`: a module that is imported there for the
    first time would keep constants without numbers for as long as the process lives.
    """
    torch = sys.modules.get("torch")  # where it is not loaded, nothing is built without memory
    with nullcontext() if torch is None else torch.device("cpu"):
        return importlib.import_module(name)


def module_names(package: str) -> list[str]:
    """Public modules of a package; those of a folder of parts are among them where it is active."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def part_names(package: str) -> list[str]:
    """Those of `module_names` that are parts: they have a `make`."""
    return [name for name in module_names(package) if hasattr(import_part(f"{package}.{name}"), "make")]


def find(package: str, name: object, *, key: str) -> Make:
    """The `make` of the part of that name; a BadValue for `key` where there is none."""
    if name in module_names(package):
        make: Make | None = getattr(import_part(f"{package}.{name}"), "make", None)
        if make is not None:
            return make
    known = part_names(package)
    require_one_of(known, **{key: name})
    raise AssertionError(name)


def options_of(make: Make) -> dict[str, inspect.Parameter]:
    """What a part's `make` takes, by name.

    A class whose constructor passes `**options` on says to which class's, its parent's or another, in `options_go_to`:
    that one states them. What is still open then is among the parameters as `**options`.
    """
    own = dict(inspect.signature(make).parameters)
    owner = next((kind for kind in getattr(make, "__mro__", ()) if "__init__" in vars(kind)), object)
    if "options_go_to" not in vars(owner):
        return own
    stated = {name: parameter for name, parameter in own.items() if parameter.kind is not _ANY}
    return {**options_of(vars(owner)["options_go_to"]), **stated}


def named(options: Mapping[str, inspect.Parameter]) -> set[str]:
    """Of `options_of` a part those that it names; it takes any others too where these are not all."""
    return {name for name, parameter in options.items() if parameter.kind is not _ANY}


def chosen(package: str, options: Options, facts: Mapping[str, Any], *, key: str) -> tuple[Make, dict[str, Any]]:
    """The `make` that `options` name, and the arguments that they are for it.

    Args:
        package: the folder of parts.
        options: of one of them.
        facts: arguments that no configuration decides, such as sizes.
        key: where the options stand, for messages.

    Raises:
        BadValue: a name that is none, or an option that the part does not take.
    """
    if not isinstance(options, Mapping | str):
        raise BadValue(f"{key}: expected a name, or options with one, got {options!r}")
    arguments = {"name": options} if isinstance(options, str) else dict(options)
    name = arguments.pop("name", None)
    make = find(package, name, key=key if isinstance(options, str) else f"{key}.name")
    takes = options_of(make)
    known = [option for option in takes if option not in facts]
    if len(named(takes)) == len(takes):
        for option in (option for option in arguments if option not in takes):
            near = did_you_mean(option, known) or f"; it takes {', '.join(known) or 'none'}"
            raise BadValue(f"{key}.{option}: no option of {key}={name}{near}")
    for option, parameter in takes.items():
        needed = parameter.default is parameter.empty and parameter.kind is not _ANY
        if needed and option not in {**arguments, **facts}:
            raise BadValue(f"{key}.{option}: expected a value, since {key}={name} has none of its own, got none")
    return make, arguments


def require_numbers(make: Make, arguments: Mapping[str, Any]) -> None:
    """Raise BadValue for what is no number, a bool among it, where the default is one; and the other way round."""
    takes = options_of(make)
    for option, value in arguments.items():
        default = takes[option].default if option in takes else None
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise BadValue(f"{option}: expected true or false, got {value!r}")
        elif isinstance(default, int | float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadValue(f"{option}: expected a number such as {default}, got {value!r}")


def build(package: str, options: Options, *, key: str, **facts: Any) -> Any:
    """Build the part that `options` name within another part, whose option `key` they are; arguments as `chosen` has.

    Raises:
        BadValue: a name that is none, an option that the part does not take, or a value that it refuses.
    """
    make, arguments = chosen(package, options, facts, key=key)
    with naming(key):
        require_numbers(make, arguments)
        return make(**arguments, **facts)
