"""Import a part that was asked for by name."""

import importlib
from types import ModuleType

import torch


def import_part(name: str) -> ModuleType:
    """The module of that dotted name, with constants in memory also where parts are being built without any.

    Options are checked by building an agent under `torch.device("meta")`: a module that is imported there for the
    first time would keep constants without numbers for as long as the process lives.
    """
    with torch.device("cpu"):
        return importlib.import_module(name)
