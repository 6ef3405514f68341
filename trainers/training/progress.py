"""What a person watches while a run learns: a live panel on a terminal, tidy lines in a log file, all on stderr."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from trainers.run_folder.three_digits import three_digits
from trainers.training.time_left import Status, TimeLeft

REFRESH_SECONDS = 0.2
LINE_SECONDS = 10.0
NEWS = ("train_return", "eval_return", "held_out")


class RunProgress(ProgressBar):
    """A Lightning progress bar that counts env_steps, or updates where the run is as long as they are.

    `update` may be called as often as one likes. On a terminal it redraws at most five times a second; elsewhere it
    writes a line for each new return and otherwise at most every ten seconds. All times come from one clock, which
    starts with the object. stream, live, clock: for tests.
    """

    def __init__(
        self,
        *,
        title: str = "",
        stream: Any = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self._is_live = self.console.is_terminal if live is None else live
        self._clock, self._enabled, self._title = clock, True, title
        self._status, self._best = Status(), -math.inf
        self._began = self._drawn = clock()
        self._left = TimeLeft(self._began)
        self._panel = Live(console=self.console, auto_refresh=False, redirect_stdout=False, get_renderable=self.render)
        self._shown = False

    @property
    def status(self) -> Status:
        """The last known state of the run."""
        return self._status

    @property
    def updates_per_s(self) -> float | None:
        """While the run learns."""
        return self._left.updates_per_s

    def update(self, **known: Any) -> None:
        """Take what is known now (fields of Status, None means unchanged) and redraw when it is time to; never raises
        for a non-finite number. A TypeError names an unknown field."""
        if unknown := known.keys() - {field.name for field in fields(Status)}:
            raise TypeError(f"progress: unknown field {sorted(unknown)}, expected {[f.name for f in fields(Status)]}")
        before = self._status
        self._status = replace(before, **{name: value for name, value in known.items() if value is not None})
        if (achieved := known.get("eval_return")) is not None:
            self._best = max(self._best, achieved)
        self._left.advance(before, self._status, self._clock())
        if self._enabled:
            self._redraw(urgent=any(getattr(self._status, name) != getattr(before, name) for name in NEWS))

    def disable(self) -> None:
        """Stay silent: ranks other than 0."""
        self._enabled = False
        self._panel.stop()

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Write a line on stderr above the panel."""
        if self._enabled:
            # what environments and data sets say may have brackets in it, which are no markup
            self.console.print(*args, markup=False, soft_wrap=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the last state on the screen and hand the terminal back."""
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hand the terminal back before the error is shown."""
        self._panel.stop()

    def close(self) -> None:
        """Draw the last state once more and stop; more than once does no harm."""
        if self._enabled and self._shown:
            self._redraw(urgent=True)
        self._shown = False
        self._panel.stop()

    def render(self) -> RenderableType:
        """The panel as it stands: a heading, the bar with its count, and the numbers below."""
        total, position = self._status.total, self._status.position
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_row(Bar(total=total, completed=position, complete_style="cyan"), Text(self.count()))
        bar.columns[1].no_wrap = True
        return Group(Text(self.heading(), style="bold"), bar, Text(self.numbers()))

    def heading(self) -> str:
        """The title, the phase and the times."""
        left = self._left.seconds(self._status)
        times = f"{_minutes(self._clock() - self._began)} gone"
        times += f" · {_minutes(round(left))} left" if left is not None else ""
        return " | ".join(text for text in (self._title, self._status.phase or "", times) if text)

    def count(self) -> str:
        """How far the run is, in its unit."""
        position, total = self._status.position, self._status.total
        unit = "updates" if self._status.counts_updates else "env steps"
        return f"{position:,} / {total:,} {unit} {position / total:4.0%}" if total else f"{position:,} {unit}"

    def numbers(self) -> str:
        """What the run has come to."""
        status, rate = self._status, self._left.updates_per_s
        best = f" (best {three_digits(self._best)})" if math.isfinite(self._best) else ""
        parts = [
            f"train {three_digits(status.train_return)}" if status.train_return is not None else "",
            f"eval {three_digits(status.eval_return)}{best}" if status.eval_return is not None else "",
            f"held-out error {three_digits(status.held_out)}" if status.held_out is not None else "",
            f"loss {three_digits(status.loss)}" if status.loss is not None else "",
            f"{status.updates:,} updates" if status.updates is not None and not status.counts_updates else "",
            f"{rate:.1f} updates/s" if rate else "",
        ]
        return " | ".join(part for part in parts if part)

    def _redraw(self, *, urgent: bool) -> None:
        now, first = self._clock(), self._is_live and not self._panel.is_started
        if now - self._drawn < (REFRESH_SECONDS if self._is_live else LINE_SECONDS) and not (urgent or first):
            return
        if self._is_live:
            self._panel.start()
            self._panel.refresh()
        else:
            parts = (self.heading(), self.count(), self.numbers())
            self.console.print(" | ".join(part for part in parts if part), markup=False, soft_wrap=True)
        self._drawn, self._shown = now, True


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
