"""A run folder as a record: what training left there, read without trusting that it is complete."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import yaml
from numpy.typing import NDArray

from trainers.run_folder.conversion import convert_results, convert_spec, convert_versions
from trainers.run_folder.read_metrics import read_metrics


@dataclass(frozen=True)
class Run:
    """What a run folder holds; whatever is missing or unreadable is empty."""

    run_dir: Path
    metrics: dict[str, NDArray[np.float64]]
    config: dict[str, Any]
    config_text: str
    results: dict[str, Any]
    versions: dict[str, Any]
    spec: dict[str, Any]

    @property
    def task(self) -> str:
        """The task's name: from the results, the environment's record, the config, or the folder above."""
        for source in (self.results, self.spec, self.config):
            task = source.get("task")
            task = (task.get("name") or task.get("task")) if isinstance(task, Mapping) else task
            if isinstance(task, str) and task:
                return task
        return self.run_dir.resolve().parent.name

    @property
    def axis(self) -> str:
        """The counter that the run's curves are drawn over: where it learned from recordings, nothing else moves."""
        data = self.config.get("data")
        return "updates" if isinstance(data, Mapping) and "updates" in data else "env_steps"

    def find(self, *names: str) -> Any:
        """The first value under one of these keys at any depth of results, environment record and config, or None."""
        values = (_find(source, name) for name in names for source in (self.results, self.spec, self.config))
        return next((value for value in values if value is not None), None)

    def series(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places on the axis and values [N] of the rows in which a column has a finite value."""
        values = self.metrics.get(name)
        if values is None:
            return np.empty(0), np.empty(0)
        steps = self.metrics.get(self.axis, np.arange(len(values), dtype=np.float64))
        keep = np.isfinite(values) & np.isfinite(steps)
        return steps[keep], values[keep]

    def last(self, name: str) -> float | None:
        """The last finite value of a column, or None."""
        values = self.series(name)[1]
        return float(values[-1]) if len(values) else None


def read_run(run_dir: Path) -> Run:
    """Read a run folder: metrics.csv, config.yaml, results.json, versions.json and spec.json, each optional."""
    spec, versions = (read_json(run_dir / f"{name}.json") for name in ("spec", "versions"))
    return Run(
        run_dir=run_dir,
        metrics=read_metrics(run_dir / "metrics.csv"),
        config=read_config(run_dir),
        config_text=_text(run_dir / "config.yaml"),
        results=read_results(run_dir),
        versions=convert_versions(versions, spec),
        spec=convert_spec(spec),
    )


def read_results(run_dir: Path) -> dict[str, Any]:
    """The results that a run wrote at its end, or where it was stopped; {} where there are none."""
    return convert_results(read_json(run_dir / "results.json"))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from a file is a finite number (true and false are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested mappings by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _find(source: Any, name: str) -> Any:
    if not isinstance(source, Mapping):
        return None
    if source.get(name) is not None:
        return source[name]
    return next((inner for value in source.values() if (inner := _find(value, name)) is not None), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """A record, {} where the file is missing or holds no JSON object."""
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_config(run_dir: Path) -> dict[str, Any]:
    """A run's config.yaml, {} where it is missing or holds no mapping."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is
    try:
        value = yaml.load(_text(run_dir / "config.yaml"), loader)  # both are safe loaders
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}
