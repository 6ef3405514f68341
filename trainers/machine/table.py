"""Findings about this machine as a person reads them, on stderr."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainers.machine.rendering import Check

MARKS = {"ok": "[green]✓ ok[/]", "note": "[yellow]• note[/]", "fail": "[bold red]✗ fail[/]"}


def show(checks: Sequence[Check]) -> None:
    """Print a table of checks with their fixes, or one unbroken line where there is only one: it can be copied."""
    console = Console(stderr=True, highlight=False)
    if len(checks) == 1:
        (only,) = checks
        fix = f"; fix: {only.fix}" if only.fix and only.fix not in only.finding else ""
        console.print(f"{MARKS[only.state]} {escape(f'{only.name}: {only.finding}{fix}')}", soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for column in ("", "check", "finding", "fix"):
        table.add_column(column, overflow="fold")
    for check in checks:
        fix = escape(check.fix) if check.state == "fail" else f"[dim]{escape(check.fix)}[/]"
        table.add_row(MARKS[check.state], check.name, escape(check.finding), fix)
    console.print(table)
