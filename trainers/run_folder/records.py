"""JSON records of a run and the versions of packages."""

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from datamodules.storage.durable import write_atomic

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "dm-control", "mujoco", "numpy", "hydra-core", "wandb")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record, old or new after a crash."""
    write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
