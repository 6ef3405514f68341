"""Import a part that was asked for by name."""

import importlib
import pkgutil
from types import ModuleType

import torch


def import_part(name: str) -> ModuleType:
    """The module of that dotted name, with constants in memory also where parts are being built without any.

    Options are checked by building an agent under `torch.device("meta")`: a module that is imported there for the
    first time would keep constants without numbers for as long as the process lives.
    """
    with torch.device("cpu"):
        return importlib.import_module(name)


def part_names(package: str) -> list[str]:
    """Public modules of a package that have a `make`; those of a folder of parts are among them where it is active."""
    modules = (module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return sorted(n for n in modules if not n.startswith("_") and hasattr(import_part(f"{package}.{n}"), "make"))
