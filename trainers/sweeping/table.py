"""What a person watches while a sweep runs: a live table on a terminal, a line for each run that ends in a log file."""

import re
import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trainers.run_folder.read import is_number
from trainers.run_folder.read_metrics import read_metrics
from trainers.run_folder.three_digits import three_digits
from trainers.sweeping.grid import PlannedRun
from trainers.sweeping.log_file import log_path, newest_line
from trainers.sweeping.record import STATES, RunRecord, SweepRecord

REFRESH_SECONDS = 2.0
MOST_ROWS = 24
COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "interrupted": "yellow", "stopped": "yellow"}
SHOWN_COLUMNS = ("env_steps", "updates", "eval/return_mean")
SHOWN = ("running", "failed", "interrupted", "stopped", "finished", "waiting")  # first what there is to see


class SweepTable:
    """A table of the runs of a call and how each stands, redrawn every two seconds where `stream` is a terminal."""

    def __init__(self, record: SweepRecord, runs: list[PlannedRun], *, title: str, stream: Any = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self._record, self._title, self._began = record, title, time.monotonic()
        self._planned = {run.name: run for run in runs}
        self._drawn = -REFRESH_SECONDS
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> "SweepTable":
        if self._live is not None:
            self._live.start()
        else:
            self.say(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
            self._live.stop()

    def update(self) -> None:
        """Redraw, every two seconds at most."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._live.update(self.render(), refresh=True)

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self.console.print(escape(text), soft_wrap=True)

    def render(self) -> RenderableType:
        """The table as it stands."""
        runs = [self._record.runs[name] for name in self._planned]
        counts = Counter(run.state for run in runs)
        heading = " · ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        gone = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - self._began))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("run", "state", "env_steps", "return", "left"):
            table.add_column(column, justify="left" if column in ("run", "state") else "right", no_wrap=True)
        order = sorted(runs, key=lambda run: SHOWN.index(run.state))
        for run in order[:MOST_ROWS]:
            table.add_row(*self._row(run))
        more = [Text(f"and {len(runs) - MOST_ROWS} more", style="dim")] if len(runs) > MOST_ROWS else []
        return Group(Text(f"{self._title} | {gone} gone | {heading}", style="bold"), table, *more)

    def _row(self, run: RunRecord) -> tuple[RenderableType, ...]:
        state = Text(run.state, style=COLOURS.get(run.state, "dim"))
        metrics = read_metrics(self._record.root / run.name / "metrics.csv", SHOWN_COLUMNS)
        config = self._planned[run.name].config
        collects = config["data"]["name"] == "online"
        steps = metrics.get("env_steps" if collects else "updates")
        total = config["task"].get("env_steps") if collects else config["data"].get("updates")
        count = f"{int(steps[-1]):,}" if steps is not None and len(steps) else "0"
        count += f" / {total:,}" if is_number(total) else ""
        count += "" if collects else " updates"
        line = newest_line(log_path(self._record.root, run.name)) if run.state == "running" else ""
        left = re.search(r"· ([\d:]+) left", line)
        note = Text((run.error or "")[:60], style="red") if run.state == "failed" else Text(left[1] if left else "")
        return Text(run.name), state, Text(count), Text(_return(run, metrics)), note


def _return(run: RunRecord, metrics: dict[str, Any]) -> str:
    """The final return, else that of the newest evaluation."""
    if run.return_mean is not None:
        return three_digits(run.return_mean)
    returns = [value for value in metrics.get("eval/return_mean", ()) if is_number(float(value))]
    return three_digits(returns[-1]) if returns else ""
