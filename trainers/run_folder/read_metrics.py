"""Read a metrics.csv back."""

import csv
import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_metrics(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """Every column of a metrics.csv as float64 [rows], NaN where a row has no value; {} when there is no file."""
    columns, rows = read_rows(Path(path))
    return {key: np.array([_number(row[key]) for row in rows], dtype=np.float64) for key in columns}


def read_columns(path: Path, names: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """As `read_metrics`, of these columns alone: a report on a thousand runs looks at few of many."""
    if not path.exists():
        return {}
    text = path.read_text(errors="replace")
    header, _, body = text[: text.rfind("\n") + 1].partition("\n")
    columns = header.split(",")
    places = {name: place for place, name in enumerate(columns) if name in names}
    rows = [cells for line in body.splitlines() if len(cells := line.split(",")) == len(columns)]
    return {name: np.array([_number(cells[place]) for cells in rows]) for name, place in places.items()}


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows of a file that a kill may have cut short; what follows the last newline is torn."""
    if not path.exists():
        return [], []
    text = path.read_text(errors="replace")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    columns = lines[0] if lines else []
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:] if len(line) == len(columns)]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
