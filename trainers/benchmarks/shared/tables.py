"""A table of results as text, as CSV and as a picture."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def as_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Aligned columns under their names."""
    cells = [list(columns), *([_short(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """One line a row, numbers in full."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
