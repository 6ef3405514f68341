"""Read a metrics.csv back."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_metrics(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """Every column of a metrics.csv as float64 [rows], NaN where a row has no value; {} when there is no file."""
    columns, rows = read_rows(Path(path))
    return {key: np.array([_number(row[key]) for row in rows], dtype=np.float64) for key in columns}


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
