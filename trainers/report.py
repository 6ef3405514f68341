"""One self-contained report.html from a run folder: `python -m trainers.report runs/<task>/<time>`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainers.command.arguments import Command, Key
from trainers.command.entry import run

COMMAND = Command(
    name="report",
    summary=(
        "Writes a run's page: the learning curve beside the published ones, films, what the model imagines, losses "
        "and times. It is one file that loads nothing, so it can be mailed."
    ),
    keys={
        "run": Key("a run folder, finished or not", required=True, aliases=("checkpoint",)),
        "out": Key("the file or the folder to write: RUN/report.html by default"),
    },
    first="run",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Write the report of a run; returns where it is."""
    own = COMMAND.parse(arguments).own
    # numpy and the drawing take a second to load: help is answered before
    from trainers.reporting.page import write_report
    from trainers.run_folder.find import find_run

    root = find_run(Path(own["run"] or ""), key="run")
    return {"report": str(write_report(root, out=Path(own["out"]) if own["out"] else None)), "run_dir": str(root)}


command = partial(run, main, usage=COMMAND.help())

if __name__ == "__main__":
    sys.exit(command())
