"""The run's own record: `metrics.csv`, always written."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from trainers.run_folder.read_metrics import read_rows

COUNTERS = ("env_steps", "decisions", "updates", "seconds")


class CSVMetrics(Logger):
    """Writes one row per call to `metrics.csv` in run_dir, with the four counters on every row.

    A counter that a call leaves out repeats the last row's. Opening an existing file drops a torn last line; a run
    that resumes calls `rewind`, so that no row appears twice.
    """

    def __init__(self, *, run_dir: Path | str) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._last: dict[str, str] = {}
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        """The logger's name for Lightning."""
        return "csv"

    @property
    def version(self) -> str:
        """The run folder's name."""
        return self.path.parent.name

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration is saved with the run as config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append one row of scalars (numbers or one-element tensors); a TypeError names what is not a number."""
        if self._file is None:
            self._open(keep=None)
        row = {key: _text(key, value) for key, value in metrics.items()}
        row = {key: row.get(key) or self._last.get(key, "0") for key in COUNTERS} | row
        new = [key for key in row if key not in self._columns]
        if new:
            self._rewrite(self._columns + new, read_rows(self.path)[1])
        assert self._file is not None
        # One write of one whole line: a kill leaves the line whole, absent or torn at the end, never mixed.
        self._file.write(_line(row.get(key, "") for key in self._columns))
        self._file.flush()
        self._last = row

    @rank_zero_only
    def rewind(self, *, updates: int, env_steps: int | None = None) -> None:
        """Drop every row that is later than these counters: what a resumed run is about to do again."""
        self._open(keep={"updates": updates} | ({} if env_steps is None else {"env_steps": env_steps}))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; a later call opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, keep: Mapping[str, float] | None) -> None:
        columns, rows = read_rows(self.path)
        if keep is not None:
            rows = [row for row in rows if all(float(row.get(key) or 0) <= limit for key, limit in keep.items())]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite(columns or list(COUNTERS), rows)

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="") as file:
            file.write(_line(columns))
            file.writelines(_line(row.get(key, "") for key in columns) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        self.finalize("rewrite")
        temporary.replace(self.path)
        self._file = self.path.open("a", newline="")
        self._columns, self._last = columns, rows[-1] if rows else {}


def _line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _text(key: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    try:
        return f"{float(value):.9g}"
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"metric {key!r}: expected a number, got {type(value).__name__} {value!r:.60}") from error
