"""sweep.json: what a sweep's runs are and how each stands, so that it can be continued, read and reported on."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from trainers.command.configuration import BadConfig
from trainers.run_folder.conversion import convert_sweep
from trainers.run_folder.paths import RunFolderInUse, RunFolderReadOnly, hold
from trainers.run_folder.read import read_json
from trainers.run_folder.records import write_json
from trainers.sweeping.grid import PlannedRun

FORMAT = 1
FILE = "sweep.json"
STATES = ("waiting", "running", "finished", "failed", "interrupted", "stopped")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How one run stands: what a PlannedRun says of it, and what has become of it."""

    name: str
    task: str
    seed: int
    variant: str
    overrides: tuple[str, ...]
    state: str = "waiting"  # one of STATES; "stopped" where a flag of Lightning's ended it before its last env_step
    exit_code: int | None = None  # of its last process, as the next two
    error: str | None = None  # why that failed
    last_lines: tuple[str, ...] = ()  # of its log, where it failed
    return_mean: float | None = None  # of its final evaluation


class SweepRecord:
    """The runs of a sweep's folder by name, and with what options of its own it was called; written after a change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: dict[str, RunRecord] = read_sweep(root)
        self.options: dict[str, Any] = convert_sweep(read_json(root / FILE))["options"]

    def add(self, planned: PlannedRun) -> None:
        """Take in a run unless it is there already; nothing is written before `update`."""
        known = {field.name for field in fields(RunRecord)} & {field.name for field in fields(PlannedRun)}
        new = RunRecord(**{name: getattr(planned, name) for name in known})
        before = self.runs.get(planned.name, new)
        self.runs[planned.name] = replace(before, variant=new.variant, overrides=new.overrides)

    def update(self, name: str, **known: Any) -> None:
        """Note how a run stands, on disk too."""
        self.runs[name] = replace(self.runs[name], **known)
        self.write()

    def write(self) -> None:
        """Write the file, old or new after a crash."""
        runs = [asdict(run) for run in self.runs.values()]
        record = {"format": FORMAT, "name": self.root.name, "options": self.options, "runs": runs}
        write_json(self.root / FILE, record)


def read_sweep(root: Path) -> dict[str, RunRecord]:
    """The runs of a sweep's folder by name, {} where there is no sweep; raises BadConfig for a file that is none."""
    path = root / FILE
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_bytes())
        runs = [RunRecord(**_tuples(run)) for run in record["runs"]]
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadConfig(f"out: expected the record of a sweep in {path}, got {error!r}") from error
    if version != FORMAT:
        raise BadConfig(f"out: expected format {FORMAT} in {path}, got {version!r}")
    return {run.name: run for run in runs}


def _tuples(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in run.items()}


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a sweep's folder, which is made where it is missing; raises RunFolderInUse, RunFolderReadOnly."""
    try:
        (root / "logs").mkdir(parents=True, exist_ok=True)
        handle = hold(root)
    except OSError as error:
        raise RunFolderReadOnly(f"out: expected a folder that can be written, got {root} ({error.strerror})") from error
    if handle is None:
        raise RunFolderInUse(f"out: another sweep runs in {root}")
    try:
        yield
    finally:
        os.close(handle)
