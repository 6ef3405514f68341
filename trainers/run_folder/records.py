"""JSON records of a run and the versions of packages."""

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from datamodules.storage.durable import write_atomic
from trainers.run_folder.conversion import FORMAT
from trainers.run_folder.paths import RunPaths
from worldmodel.spec import EnvSpec

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "dm-control", "mujoco", "numpy", "hydra-core", "wandb")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record, old or new after a crash."""
    write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that results depend on, and of this project."""
    by_package = {"git_commit": git_commit(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            by_package[name] = "not installed"
    return by_package


def git_commit() -> str:
    """The commit of this project's files, with "changed" where they differ from it; "none" outside a repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if not (root / ".git").exists():  # an installed copy may lie in somebody else's repository
            return "none"
        return git("rev-parse", "HEAD") + (", changed" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "none"


def write_records(paths: RunPaths, config: dict[str, Any], spec: EnvSpec, *, device: str, renderer: str) -> None:
    """What a run can be rebuilt from: config.yaml, spec.json, versions.json; an earlier configuration is kept."""
    if "look" in config["task"]["env"] and spec.look != "none":
        # what was drawn, so that the run is continued and evaluated with the same look on any machine
        config["task"]["env"]["look"] = spec.look
    paths.keep_config()
    write_json(paths.root / "spec.json", spec.to_json())
    write_json(paths.root / "versions.json", {**versions(), "device": device, "renderer": renderer})
    write_atomic(paths.config, yaml.safe_dump({"format": FORMAT, **config}, sort_keys=False).encode())
