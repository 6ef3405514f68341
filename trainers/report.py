"""One self-contained report.html from a run, or from many: `python -m trainers.report runs/<task>/<time>`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.command.arguments import Command, Key
from trainers.command.configuration import BadConfig

COMMAND = Command(
    name="report",
    summary=(
        "Writes a run's page: the learning curve beside the published ones, films, what the model imagines, losses "
        "and times. Of a folder of runs, a sweep's or any other, it writes one page on all: curves by task, means and "
        "IQM with intervals, profiles, wall-clock, planner exploitation, and the same as CSV. A page is one file that "
        "loads nothing, so it can be mailed."
    ),
    keys={
        "run": Key(
            "a run folder, finished or not, or a folder of them", required=True, aliases=("checkpoint", "run_dir")
        ),
        "against": Key("of a folder of runs: another one, for the probability of improvement"),
        "out": Key("the file or the folder to write: RUN/report.html by default"),
    },
    first="run",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Write the report of a run or of many; returns where it is, and the figures of many."""
    own = COMMAND.parse(arguments).own
    root, out = Path(own["run"] or "").expanduser(), Path(own["out"]) if own["out"] else None
    # numpy and the drawing take a second to load: help is answered before
    from trainers.reporting.run_set import holds_runs
    from trainers.run_folder.find import find_run, is_run

    if not root.exists():
        raise BadConfig(f"run: expected a run folder or a folder of runs, got {root}, which does not exist")
    if not is_run(root) and holds_runs(root):
        return _report_many(root, own["against"], out)
    if own["against"]:
        raise BadConfig(f"against: expected a folder of many runs to compare, got {root}")
    from trainers.reporting.run_page import write_report

    root = find_run(root, key="run")
    return {"report": str(write_report(root, out=out)), "run_dir": str(root)}


def _report_many(root: Path, against: str | None, out: Path | None) -> dict[str, Any]:
    from trainers.reporting.run_set import read_runs
    from trainers.reporting.set_summary import summary
    from trainers.reporting.sweep_page import write_sweep_report

    runs = read_runs(root.absolute())  # as the sweep says it
    others = read_runs(Path(against).expanduser().absolute(), key="against") if against else None
    path = write_sweep_report(runs, against=others, out=out)
    return {"report": str(path), **summary(runs, against=others)}


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
