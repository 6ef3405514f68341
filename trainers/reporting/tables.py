"""Tables for people, on standard error or as text, and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.storage.durable import write_atomic

Row = Mapping[str, Any]


def show_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values under a title; those without a value are left out."""
    console, width = Console(stderr=True, highlight=False), max(map(len, facts))
    console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    for name, value in facts.items():
        if value:
            console.print(f"  [dim]{name:<{width}}[/]  {escape(value)}", soft_wrap=True)


def as_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Rows in aligned columns under their names, of any width."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(_short(row.get(column))) for column in columns))
    file = io.StringIO()
    Console(file=file, width=10_000, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """One line a row, numbers in full, lists with spaces between their numbers."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    write_atomic(path, file.getvalue().encode())


def _cell(value: Any) -> Any:
    return " ".join(f"{one:.6g}" for one in value) if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
