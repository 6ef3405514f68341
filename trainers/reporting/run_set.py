"""A folder of runs as a record: what each came to, by task, variant and seed, and the curves of its evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.command.configuration import BadConfig
from trainers.run_folder.read import is_number, leaves, read_config, read_json, read_results
from trainers.run_folder.read_metrics import read_metrics
from trainers.sweeping.record import FILE, RunRecord, read_sweep

EVALUATION, PREDICTED, REALISED = "eval/return_mean", "plan/predicted_return", "plan/realised_return"
COLUMNS = ("env_steps", "decisions", "updates", "seconds", "train/random_return", EVALUATION, PREDICTED, REALISED)
# settings that say nothing of the method: the task and its length, the seed, where things lie, what is logged
NO_METHOD = (
    *("task.", "seed", "run_dir", "resume", "format", "parts"),
    *("logger.", "checkpoint.", "data.cache", "data.uri"),
)
MOST_KEYS = 4  # of a variant's name

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What one run of a set came to; None or empty where it is not known. Grouped by task, seed and variant."""

    name: str  # of its folder in the set
    task: str
    seed: int | None
    variant: str = ""  # where all have the same settings
    state: str = "unfinished"  # of a sweep's record, or "finished" and "unfinished"
    return_mean: float | None = None  # of the final evaluation
    action_repeat: int | None = None  # as the environment was made
    look: str = ""
    commit: str = ""
    device: str = ""
    metrics: Mapping[str, Array] = field(default_factory=dict)  # columns of metrics.csv, each [rows]
    error: str = ""  # why it failed
    last_lines: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether its return is its final one."""
        return self.state == "finished" and self.return_mean is not None

    def column(self, name: str = EVALUATION, axis: str = "env_steps") -> tuple[Array, Array]:
        """Places on a counter, in order, and finite values [N] of a column, of several at one place the last."""
        values, places = self.metrics.get(name), self.metrics.get(axis)
        if values is None or places is None:
            return np.empty(0), np.empty(0)
        keep = np.isfinite(values) & np.isfinite(places)
        last = dict(zip(places[keep].tolist(), values[keep].tolist(), strict=True))
        return np.array(sorted(last)), np.array([last[place] for place in sorted(last)])

    def last(self, name: str) -> float | None:
        """The last finite value of a column."""
        values = self.metrics.get(name, np.empty(0))
        values = values[np.isfinite(values)]
        return float(values[-1]) if len(values) else None


@dataclass(frozen=True, slots=True)
class RunSet:
    """The runs of a folder."""

    root: Path
    runs: tuple[RunResult, ...]

    @property
    def tasks(self) -> list[str]:
        """Sorted names."""
        return sorted({run.task for run in self.runs})

    @property
    def variants(self) -> list[str]:
        """In the order in which they come."""
        return list(dict.fromkeys(run.variant for run in self.runs))

    def of(self, *, task: str | None = None, variant: str | None = None) -> list[RunResult]:
        """The runs of a task, of a variant, of both."""
        return [run for run in self.runs if task in (None, run.task) and variant in (None, run.variant)]

    def scores(self, variant: str | None = None) -> dict[str, Array]:
        """Final returns of finished runs by task, [S] each; without tasks that have none."""
        groups = {task: self.of(task=task, variant=variant) for task in self.tasks}
        return {task: values for task, group in groups.items() if len(values := final_returns(group))}

    def strata(self, *, task: str | None = None, variant: str | None = None) -> dict[str, Array]:
        """Final returns of finished runs by task and variant, [S] each: what differs in nothing but the seed."""
        pairs = [(one, other) for one in self.tasks for other in self.variants]
        chosen = [(one, other) for one, other in pairs if task in (None, one) and variant in (None, other)]
        groups = {f"{one}, {other}": final_returns(self.of(task=one, variant=other)) for one, other in chosen}
        return {name: values for name, values in groups.items() if len(values)}


def final_returns(runs: Sequence[RunResult]) -> Array:
    """Of the finished ones [S]."""
    return np.array([run.return_mean for run in runs if run.is_finished], dtype=np.float64)


def holds_runs(root: Path) -> bool:
    """Whether a folder is a sweep's, or one with run folders in it or one level deeper."""
    return (root / FILE).is_file() or next(_run_folders(root), None) is not None


def read_runs(root: Path, *, key: str = "run") -> RunSet:
    """Every run of a sweep, or every run folder in `root`, whatever state it is in; raises BadConfig where is none."""
    records = read_sweep(root)
    if records:
        return RunSet(root, tuple(_of_sweep(root / name, record) for name, record in records.items()))
    found = [(folder, read_config(folder)) for folder in sorted(_run_folders(root))]
    if not found:
        gone = "" if root.is_dir() else ", which is no folder"
        raise BadConfig(f"{key}: expected a folder of runs, got {root}{gone}")
    names = _variant_names([config for _, config in found])
    runs = [_read(folder, root, config) for folder, config in found]
    return RunSet(root, tuple(replace(run, variant=name) for run, name in zip(runs, names, strict=True)))


def _run_folders(root: Path) -> Any:
    return (path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/config.yaml"))


def _of_sweep(folder: Path, record: RunRecord) -> RunResult:
    facts = _facts(folder)
    state = "finished" if facts["state"] == "finished" else record.state
    facts |= {key: getattr(record, key) for key in ("name", "seed", "variant", "last_lines")}
    return RunResult(**facts | {"task": facts["task"] or record.task, "state": state, "error": record.error or ""})


def _read(folder: Path, root: Path, config: Mapping[str, Any]) -> RunResult:
    facts = _facts(folder)
    task, seed = config.get("task"), config.get("seed")
    named = str(task.get("name") or "") if isinstance(task, Mapping) else ""
    name = str(folder.relative_to(root))
    seed = seed if isinstance(seed, int) else None
    return RunResult(name=name, seed=seed, **facts | {"task": facts["task"] or named or folder.parent.name})


def _facts(folder: Path) -> dict[str, Any]:
    """What a run folder says of itself, without its configuration, which takes long to read."""
    results, spec, versions = read_results(folder), read_json(folder / "spec.json"), read_json(folder / "versions.json")
    repeat = spec.get("action_repeat")
    mean = results.get("return_mean")
    return {
        "task": str(results.get("task") or spec.get("task") or ""),
        "state": "finished" if results.get("status") == "finished" else "unfinished",
        "return_mean": float(mean) if is_number(mean) else None,
        "action_repeat": repeat if isinstance(repeat, int) else None,
        "look": str(results.get("look") or spec.get("look") or ""),
        "commit": str(versions.get("git_commit") or ""),
        "device": str(versions.get("device") or ""),
        "metrics": read_metrics(folder / "metrics.csv", COLUMNS),
    }


def _variant_names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each configuration the settings of the method in which it differs from others, "" where none does."""
    flat = [{key: str(value) for key, value in leaves(config).items()} for config in configs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if not key.startswith(NO_METHOD)]
    differing = [key for key in keys if len({one.get(key) for one in flat}) > 1]
    differing.sort(key=lambda key: not key.endswith(".name"))  # which part, before how it is set
    whole = [", ".join(f"{key}={one[key]}" for key in differing if key in one) for one in flat]
    if len(differing) <= MOST_KEYS:
        return whole
    short = [", ".join(f"{key}={one[key]}" for key in differing[:MOST_KEYS] if key in one) + ", ..." for one in flat]
    # a short name that two settings share would make them one
    clear = {name for name in short if len({w for w, s in zip(whole, short, strict=True) if s == name}) == 1}
    return [s if s in clear else w for w, s in zip(whole, short, strict=True)]
