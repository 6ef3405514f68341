"""A sweep from checked arguments to its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trainers.command import registry
from trainers.command.configuration import BadConfig, whole_number
from trainers.command.same_run import require_same_run
from trainers.process.interrupt import Interrupt
from trainers.reporting.run_set import read_runs
from trainers.reporting.set_summary import summary
from trainers.reporting.sweep_page import write_sweep_report
from trainers.run_folder.find import RECORDS
from trainers.sweeping.engine import Engine
from trainers.sweeping.execute import Execution
from trainers.sweeping.grid import PlannedRun, plan_runs
from trainers.sweeping.record import SweepRecord, locked
from trainers.sweeping.table import SweepTable

ENGINES = "trainers.sweeping.engines"


def sweep(
    overrides: Sequence[str], *, out: str, jobs: str | None, engine: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run every combination that is not finished; returns the results that are printed.

    Args:
        overrides: of configs/fit.yaml, with commas between several values; none: those of the sweep in `out`.
        out: its folder.
        jobs: how many at once, "auto" for as many as cores or GPUs allow; None: as the sweep was told before.
        engine: `name`, a file in trainers/sweeping/engines, and options of it; what is missing: as before.

    Raises:
        BadConfig: before anything starts, where a combination cannot, or a run in `out` has another configuration.
    """
    root = Path(out).expanduser().absolute()
    if any((root / name).is_file() for name in RECORDS):
        raise BadConfig(f"out: expected a folder for many runs, got the run {root}")
    record = SweepRecord(root)
    runs = plan_runs(overrides, group=root.name) if overrides else _again(record)
    _require_of_this_sweep(record, runs, overrides)
    for run in runs:
        require_same_run(root / run.name, run.config, words=run.overrides, hint="name another out=")
    options = _options(record.options, jobs=jobs, engine=engine or {})
    starter = _engine(options["engine"], runs, jobs=options["jobs"])
    with locked(root):
        record.options = options
        for run in runs:
            record.add(run)
        with Interrupt() as interrupt, SweepTable(record, runs, title=f"{root.name}: {starter.describe()}") as table:
            Execution(record, starter, table, interrupt).run(runs)
    if interrupt.received is not None:
        table.say(f"stopped; python -m trainers.sweep out={out} continues")
    return _results(record, interrupt, root)


def _again(record: SweepRecord) -> list[PlannedRun]:
    """The runs of a sweep that is continued by its folder alone."""
    if not record.runs:
        raise BadConfig(f"out: expected task=a,b and other keys, since there is no sweep in {record.root} to continue")
    again = {run: plan_runs(run.overrides, group=record.root.name)[0] for run in record.runs.values()}
    return [replace(planned, name=run.name, variant=run.variant) for run, planned in again.items()]


def _require_of_this_sweep(record: SweepRecord, runs: Sequence[PlannedRun], overrides: Sequence[str]) -> None:
    """Raise BadConfig where a sweep that exists would get runs of a task that nobody named."""
    if not record.runs or any(run.name in record.runs for run in runs):
        return
    if not {text.partition("=")[0] for text in overrides} & {"task", "experiment", "data"}:
        raise BadConfig(
            f"task: expected the tasks of the runs to add to {record.root}, got none; "
            "without any override the sweep continues"
        )


def _options(before: Mapping[str, Any], *, jobs: str | None, engine: Mapping[str, str]) -> dict[str, Any]:
    """How runs are started: as is typed now, else as the sweep was told before."""
    count = None if jobs in (None, "auto") else whole_number("jobs", str(jobs))
    kept = before.get("engine", {"name": "local"})
    same = engine.get("name", kept["name"]) == kept["name"]
    return {"jobs": before.get("jobs") if jobs is None else count, "engine": {**(kept if same else {}), **engine}}


def _engine(options: Mapping[str, str], runs: Sequence[PlannedRun], *, jobs: int | None) -> Engine:
    trainers = [run.config["trainer"] for run in runs]
    devices = max(one["devices"] if isinstance(one["devices"], int) else 1 for one in trainers)
    on_gpu = any(one["accelerator"] in ("auto", "gpu", "cuda") for one in trainers) and torch.cuda.is_available()
    facts = {"runs": len(runs), "jobs": jobs, "devices": max(1, devices), "accelerator": "gpu" if on_gpu else "cpu"}
    engine: Engine = registry.make(ENGINES, options, key="engine", **facts)
    return engine


def _results(record: SweepRecord, interrupt: Interrupt, root: Path) -> dict[str, Any]:
    """What the sweep came to; the exit code says whether every run finished."""
    runs = read_runs(root)
    failed = [run for run in record.runs.values() if run.state == "failed"]
    return {
        "status": "interrupted" if interrupt.received is not None else "failed" if failed else "finished",
        **summary(runs),
        "failures": [{"name": run.name, "exit_code": run.exit_code, "error": run.error} for run in failed],
        "report": str(write_sweep_report(runs)) if interrupt.received is None else None,
        "exit_code": 128 + interrupt.received if interrupt.received is not None else int(bool(failed)),
    }
