"""What a person watches while a run learns: a live panel on a terminal, tidy lines in a log file, all on stderr."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Status:
    """The last known state of a run; None where nothing is known yet."""

    env_steps: int = 0
    total_env_steps: int | None = None
    decisions: int | None = None
    updates: int | None = None
    total_updates: int | None = None  # where the run's length is counted in updates
    phase: str | None = None
    train_return: float | None = None
    eval_return: float | None = None
    loss: float | None = None
    held_out: float | None = None  # error on held-out episodes
    updates_per_s: float | None = None

    @property
    def counts_updates(self) -> bool:
        """Whether the run is as long as its updates, not as its env_steps."""
        return self.total_updates is not None

    @property
    def position(self) -> int:
        """How far the run is."""
        return (self.updates or 0) if self.counts_updates else self.env_steps

    @property
    def unit(self) -> str:
        """What is counted."""
        return "updates" if self.counts_updates else "env steps"

    @property
    def total(self) -> int | None:
        """How long the run is."""
        return self.total_updates if self.counts_updates else self.total_env_steps


PHASES = ("seed", "collect", "learn", "evaluate")
OFFLINE_PHASES = ("learn", "validate")
REFRESH_SECONDS = 0.2
LINE_SECONDS = 10.0
RATE_WINDOW_SECONDS = 240.0  # several episodes: collecting is fast and learning stands still on the env_steps axis
SPARKS = "▁▂▃▄▅▆▇█"


class RunProgress(ProgressBar):
    """A Lightning progress bar that counts env_steps, or updates where the run is as long as they are.

    `update` may be called as often as one likes.

    On a terminal it redraws at most five times a second; elsewhere it writes a line for each new training return or
    phase of evaluation and otherwise at most every ten seconds. `stream` and `clock` are for tests.
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
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._is_live = self._console.is_terminal if live is None else live
        self._title, self._clock, self._enabled = title, clock, True
        self._status, self._best = Status(), -math.inf
        self._returns: deque[float] = deque(maxlen=24)
        self._history: deque[tuple[float, int]] = deque()
        self._updates: deque[tuple[float, int]] = deque(maxlen=200)
        self._shown = False
        self._started = self._drawn = clock()
        self._live: Live | None = None

    @property
    def status(self) -> Status:
        """The last known state of the run."""
        return self._status

    def update(self, **known: Any) -> None:
        """Take what is known now (fields of Status, None means unchanged) and redraw when it is time to; never raises
        for a non-finite number. A TypeError names an unknown field."""
        unknown = known.keys() - {field.name for field in fields(Status)}
        if unknown:
            raise TypeError(f"progress: unknown field {sorted(unknown)}, expected {[f.name for f in fields(Status)]}")
        before = self._status
        self._status = replace(before, **{name: value for name, value in known.items() if value is not None})
        self._remember(before, known)
        if self._enabled:
            self._redraw(urgent=self._is_news(before))

    def disable(self) -> None:
        """Stay silent: ranks other than 0."""
        self._enabled = False
        self._stop()

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Write a line on stderr above the panel."""
        if self._enabled:
            self._console.print(*args, soft_wrap=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count time."""
        self._started = self._clock()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the last state on the screen and hand the terminal back."""
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hand the terminal back before the error is shown."""
        self._stop()

    def close(self) -> None:
        """Draw the last state once more and stop; more than once does no harm."""
        if self._enabled and self._shown:
            self._redraw(urgent=True)
        self._shown = False
        self._stop()

    def render(self, width: int = 80) -> RenderableType:
        """The panel as it stands, for a terminal of this width."""
        head = Table.grid(expand=True)
        head.add_column(), head.add_column(justify="right")
        names = OFFLINE_PHASES if self._status.counts_updates else PHASES
        head.add_row(_phases(self._title, self._status.phase, names), Text(self._times(), style="dim"))
        bar = Table.grid(expand=True, padding=(0, 1, 0, 0))
        bar.add_column(ratio=1), bar.add_column(no_wrap=True)
        steps, total = self._status.position, self._status.total
        bar.add_row(
            Bar(total=total or 1, completed=min(steps, total or steps), pulse=total is None, complete_style="cyan"),
            Text(self._steps()),
        )
        return Group(head, bar, self._numbers())

    def _remember(self, before: Status, known: dict[str, Any]) -> None:
        now, after = self._clock(), self._status
        # the first number a resumed run hears of is where it continues, not progress
        counter = "updates" if after.counts_updates else "env_steps"
        if known.get(counter) is not None and (after.position != before.position or not self._history):
            self._history.append((now, after.position))
        while len(self._history) > 2 and now - self._history[0][0] > RATE_WINDOW_SECONDS:
            self._history.popleft()
        if known.get("train_return") is not None and after.train_return != before.train_return:
            self._returns.append(float(known["train_return"]))
        if known.get("eval_return") is not None:
            self._best = max(self._best, float(known["eval_return"]))
        self._measure_updates(known, now)

    def _measure_updates(self, known: dict[str, Any], now: float) -> None:
        """The rate of updates while the run learns, where the caller does not know it."""
        if known.get("phase", "learn") != "learn":
            self._updates.clear()
        elif known.get("updates") is not None and known.get("updates_per_s") is None:
            self._updates.append((now, known["updates"]))
            (start, first), (end, last) = self._updates[0], self._updates[-1]
            if end - start > 1.0:
                self._status = replace(self._status, updates_per_s=(last - first) / (end - start))

    def _is_news(self, before: Status) -> bool:
        after = self._status
        news = ("train_return", "eval_return", "held_out")
        return any(getattr(after, name) != getattr(before, name) for name in news)

    def _redraw(self, *, urgent: bool) -> None:
        now = self._clock()
        if self._is_live:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=False, redirect_stdout=False)
                self._live.start()
            elif now - self._drawn < REFRESH_SECONDS and not urgent:
                return
            self._live.update(self.render(self._console.width), refresh=True)
        elif urgent or now - self._drawn >= LINE_SECONDS:
            self._console.print(self._line(), markup=False, soft_wrap=True)
        else:
            return
        self._drawn, self._shown = now, True

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _left(self) -> float | None:
        """Seconds to the end at the rate of the last minutes, None while there is none."""
        total, now = self._status.total, self._clock()
        if total is None or len(self._history) < 2:
            return None
        since, first = self._history[0]
        gained = self._status.position - first
        return max(0, total - self._status.position) * (now - since) / gained if gained > 0 else None

    def _times(self) -> str:
        left = self._left()
        return f"{_clock(self._clock() - self._started)} gone" + (f" · {_clock(left)} left" if left is not None else "")

    def _steps(self) -> str:
        steps, total, unit = self._status.position, self._status.total, self._status.unit
        return f"{steps:,} / {total:,} {unit} {steps / total:4.0%}" if total else f"{steps:,} {unit}"

    def _numbers(self) -> Table:
        status, best = self._status, f"{self._best:.0f}" if math.isfinite(self._best) else None
        if status.counts_updates:
            return self._offline_numbers()
        cells = [
            ("evaluation", _number(status.eval_return), f"best {best}" if best else ""),
            ("training", _number(status.train_return), _sparkline(self._returns)),
            ("loss", _number(status.loss), ""),
            ("updates", _count(status.updates), f"{status.updates_per_s:.1f}/s" if status.updates_per_s else ""),
            ("decisions", _count(status.decisions), ""),
        ]
        return _grid(cells[:2], cells[2:])

    def _offline_numbers(self) -> Table:
        status = self._status
        cells = [
            ("held-out error", _number(status.held_out), ""),
            ("loss", _number(status.loss), ""),
            ("updates", f"{status.updates_per_s:.1f}/s" if status.updates_per_s else "–", ""),
        ]
        evaluated = [("evaluation", _number(status.eval_return), "")] if status.eval_return is not None else []
        return _grid([*cells, *evaluated])

    def _line(self) -> str:
        status = self._status
        parts = [
            self._times(),
            self._steps(),
            status.phase,
            ("train", status.train_return),
            ("eval", status.eval_return),
            ("loss", status.loss),
            ("held-out error", status.held_out),
        ]
        parts += [f"{status.updates:,} updates" if status.updates is not None and not status.counts_updates else None]
        parts += [f"{status.updates_per_s:.1f} updates/s" if status.updates_per_s else None]
        texts = [f"{p[0]} {_number(p[1])}" if isinstance(p, tuple) and p[1] is not None else p for p in parts]
        return " | ".join(text for text in texts if isinstance(text, str) and text)


def _grid(*rows: Sequence[tuple[str, str, str]]) -> Table:
    """Names, values and what is said beside them."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for row in rows:
        line = Text()
        for name, value, more in row:
            line.append(f"{name} ", style="dim").append(value, style="bold").append(f" {more}   ", style="cyan")
        grid.add_row(line)
    return grid


def _phases(title: str, current: str | None, names: Sequence[str]) -> Text:
    text = Text().append(f"{title}   " if title else "", style="bold")
    names = names if current is None or current in names else (*names, current)
    for index, name in enumerate(names):
        text.append(" › " if index else "", style="dim")
        text.append(name, style="bold green" if name == current else "dim")
    return text


def _sparkline(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(SPARKS[int((value - low) / span * (len(SPARKS) - 1))] for value in finite)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
