"""Read a metrics.csv back."""

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_metrics(path: Path | str, names: Collection[str] | None = None) -> dict[str, NDArray[np.float64]]:
    """Columns of a metrics.csv as float64 [rows], NaN where a row has no value; {} when there is no file.

    names: which ones, all by default: a report on a thousand runs looks at few of many.
    """
    columns, rows = _cells(Path(path))
    places = {name: place for place, name in enumerate(columns) if names is None or name in names}
    return {name: np.array([_number(row[place]) for row in rows], np.float64) for name, place in places.items()}


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows by column."""
    columns, rows = _cells(path)
    return columns, [dict(zip(columns, row, strict=True)) for row in rows]


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and whole rows of a file that a kill may have cut short; what follows the last newline is torn."""
    if not path.exists():
        return [], []
    text = path.read_text(errors="replace")
    columns, *rows = [*csv.reader(text[: text.rfind("\n") + 1].splitlines())] or [[]]
    return columns, [row for row in rows if len(row) == len(columns)]


def _number(text: str) -> float:
    try:
        return float(text or "nan")  # an error would take ten times as long
    except ValueError:
        return float("nan")
