"""Says what is wrong with this machine, and the fix: `python -m trainers.doctor [task=...] [data.capacity=...]`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainers.command.arguments import Command
from trainers.machine.checks import all_checks, suite_task
from trainers.machine.gl_install import ensure_gl
from trainers.machine.rendering import Check, check_render

MARKS = {"ok": "[green]✓ ok[/]", "note": "[yellow]• note[/]", "fail": "[bold red]✗ fail[/]"}
COMMAND = Command(
    name="doctor",
    summary=(
        "Checks versions, rendering, memory, disk, GPUs and the run folder against the configuration that `python -m "
        "trainers.fit` would have with the same overrides, and prints the fix for what fails. The exit code is 0 when "
        "everything needed is there."
    ),
    switches={
        "--render-only": "draw a frame and nothing else",
        "--install-gl": "install Mesa by apt-get where no GL library renders, as root or by sudo without password",
    },
    overrides="a key of the configuration: see python -m trainers.fit --help",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run every check and show a table on stderr; returns {"ok", "checks": [...], "exit_code"}."""
    parsed = COMMAND.parse(arguments)
    config = _configuration(parsed.overrides)
    task = suite_task(config)
    gl = [ensure_gl(lambda: check_render(task))] if task and "--install-gl" in parsed.switches else []
    checks = gl or [check_render(task)] if "--render-only" in parsed.switches else list(all_checks(config))
    _show(checks)
    ok = all(check.state != "fail" for check in checks)
    return {"ok": ok, "checks": [asdict(check) for check in checks], "exit_code": 0 if ok else 1}


def _show(checks: Sequence[Check]) -> None:
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
        table.add_row(MARKS[check.state], escape(check.name), escape(check.finding), fix)
    console.print(table)


def _configuration(words: Sequence[str]) -> dict[str, Any]:
    """That of a run with these overrides."""
    try:
        from trainers.command.configuration import load_config
    except ImportError:  # what is missing is in the table; the rest of it goes by the defaults
        task = dict(word.split("=", 1) for word in words).get("task", "cartpole_swingup")
        source = "toy" if task.startswith("toy") else "dmc"
        return {"task": {"name": task, "source": source, "env": {}}, "data": {"capacity": 100_000}}
    return load_config(words)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
