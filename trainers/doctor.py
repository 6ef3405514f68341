"""Says what is wrong with this machine, and the fix: `python -m trainers.doctor [task=...] [data.capacity=...]`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from trainers.command.arguments import Command
from trainers.command.entry import run
from trainers.machine.checks import all_checks, rendering_verdict, suite_task
from trainers.machine.gl_install import ensure_gl
from trainers.machine.rendering import Check, check_render
from trainers.machine.table import show

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
    checks = [*(gl or _verdict_only(config))] if "--render-only" in parsed.switches else list(all_checks(config))
    show(checks)
    ok = all(check.state != "fail" for check in checks)
    return {"ok": ok, "checks": [check.to_json() for check in checks], "exit_code": 0 if ok else 1}


def _verdict_only(config: Mapping[str, Any]) -> Iterator[Check]:
    task = suite_task(config)
    yield check_render(task) if task else next(rendering_verdict(None))


def _configuration(words: Sequence[str]) -> dict[str, Any]:
    """That of a run with these overrides."""
    try:
        from trainers.command.configuration import load_config
    except ImportError:  # what is missing is in the table; the rest of it goes by the defaults
        task = dict(word.split("=", 1) for word in words).get("task", "cartpole_swingup")
        source = "toy" if task.startswith("toy") else "dmc"
        return {"task": {"name": task, "source": source, "env": {}}, "data": {"capacity": 100_000}}
    return load_config(words)


command = partial(run, main, usage=COMMAND.help())

if __name__ == "__main__":
    sys.exit(command())
