"""The families' rows as text, CSV and a drawing."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from datamodules.storage.durable import write_atomic
from trainers.acting.held_out import STEPS
from trainers.reporting.charts import nice_ticks, short

COLUMNS = ("family", "updates", "reward", *(f"reward_{step}" for step in STEPS), "return", "update_ms")
COLOURS = ("#2563eb", "#d9730d", "#12805c", "#8b5cf6", "#d64545", "#5b6472")


@dataclass(frozen=True)
class Axis:
    """Values from 0 to `top` between two places of a drawing."""

    top: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value is drawn; what is beyond the top, at the top."""
        return self.start + min(max(value, 0.0) / self.top, 1.0) * (self.end - self.start)


def write(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """models.txt, models.csv and models.svg."""
    write_atomic(folder / "models.txt", text(rows).encode())
    write_atomic(folder / "models.csv", _csv(rows).encode())
    write_atomic(folder / "models.svg", drawing(rows).encode())


def text(rows: Sequence[dict[str, Any]]) -> str:
    """A table in columns; errors are shares of the rewards' variance."""
    lines = [COLUMNS, *([_short(row[name]) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        + "\n"
        for line in lines
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([name.lstrip().ljust(widths[0]), *numbers]) + "\n"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, [*rows[0]] if rows else COLUMNS)
    writer.writeheader()
    writer.writerows({**row, "returns": " ".join(f"{r:.1f}" for r in row["returns"])} for row in rows)
    return file.getvalue()


def drawing(rows: Sequence[dict[str, Any]], *, width: int = 900, line: int = 30) -> str:
    """Left the reward error by steps ahead, a dot for each; right the mean return with its episodes, as SVG."""
    height = 70 + line * len(rows)
    errors = [row[f"reward_{step}"] for row in rows for step in STEPS if row[f"reward_{step}"] is not None]
    error_axis = Axis(max([1.0, *errors]), 150, 480)
    return_axis = Axis(max([1.0, *(r for row in rows for r in row["returns"])]), 560, 860)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
        ' font-size="13"><rect width="100%" height="100%" fill="white"/>',
        _caption(error_axis, "open-loop reward error, share of variance (1 = the mean)"),
        _caption(return_axis, "return of planning"),
    ]
    for axis in (error_axis, return_axis):
        parts += [_tick(axis(value), short(value), height) for value in nice_ticks(0, axis.top, 5)]
    for number, row in enumerate(rows):
        y = 55 + line * number
        parts.append(f'<text x="140" y="{y + 4}" text-anchor="end">{escape(row["family"])}</text>')
        for step, colour in zip(STEPS, COLOURS, strict=False):
            if row[f"reward_{step}"] is not None:
                parts.append(_dot(error_axis(row[f"reward_{step}"]), y, colour, 5))
        parts += [_dot(return_axis(value), y, "#b6bdc8", 3.5) for value in row["returns"]]
        if row["return"] is not None:
            parts.append(_dot(return_axis(row["return"]), y, COLOURS[0], 5))
    for number, (step, colour) in enumerate(zip(STEPS, COLOURS, strict=False)):
        parts.append(_dot(error_axis.start + 110 * number + 5, height - 8, colour, 5))
        parts.append(f'<text x="{error_axis.start + 110 * number + 15}" y="{height - 4}">{step} ahead</text>')
    return "".join([*parts, "</svg>"])


def _tick(x: float, label: str, height: int) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="36" y2="{height - 24}" stroke="#e6e9ee"/>'
        f'<text x="{x:.1f}" y="32" text-anchor="middle" fill="#5b6472" font-size="11">{label}</text>'
    )


def _caption(axis: Axis, words: str) -> str:
    return f'<text x="{axis.start}" y="16" fill="#14181f">{escape(words)}</text>'


def _dot(x: float, y: float, colour: str, radius: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.9"/>'


def _short(value: Any) -> str:
    if isinstance(value, str | int):
        return str(value)
    return "" if value is None else f"{value:.3g}" if abs(value) < 10 else f"{value:.0f}"
