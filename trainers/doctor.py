"""Says what is wrong with this machine, and the fix: `python -m trainers.doctor [task=...] [data.capacity=...]`."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainers.machine.checks import all_checks, rendering_verdict, suite_task
from trainers.machine.gl_install import ensure_gl
from trainers.machine.rendering import Check, check_render
from trainers.machine.table import show

__all__ = ["Check", "check_render", "main"]

USAGE = """python -m trainers.doctor [--render-only] [--install-gl] [key=value ...]

Checks versions, rendering, memory, disk, GPUs and the run folder against the configuration that
`python -m trainers.fit` would have with the same overrides, and prints the fix for what fails.
The exit code is 0 when everything needed is there; --render-only draws a frame and nothing else;
--install-gl installs Mesa by apt-get where no GL library renders and this user may (root, or sudo without password)."""
FLAGS = ("--render-only", "--install-gl")


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run every check, show a table on stderr and return {"ok", "checks": [...]}; ValueError for a wrong override."""
    render_only, config = _configure(argv)
    task = suite_task(config)
    gl = [ensure_gl(lambda: check_render(task))] if task and "--install-gl" in argv else []
    checks = [*(gl or _verdict_only(config))] if render_only else list(all_checks(config))
    show(checks)
    return {"ok": all(check.state != "fail" for check in checks), "checks": [check.to_json() for check in checks]}


def _verdict_only(config: Mapping[str, Any]) -> Iterator[Check]:
    task = suite_task(config)
    yield check_render(task) if task else next(rendering_verdict(None))


def _configure(argv: Sequence[str]) -> tuple[bool, dict[str, Any]]:
    """Whether only a frame is to be drawn, and the configuration of a run with these overrides."""
    words = [word for word in argv if word not in FLAGS]
    if bad := [word for word in words if "=" not in word]:
        raise ValueError(f"expected {', '.join(FLAGS)} or key=value, got {bad[0]!r}; see --help")
    try:
        from trainers.command.configuration import load_config
    except ImportError:  # what is missing is in the table; the rest of it goes by the defaults
        task = dict(word.split("=", 1) for word in words).get("task", "cartpole_swingup")
        source = "toy" if task.startswith("toy") else "dmc"
        config: dict[str, Any] = {"task": {"name": task, "source": source, "env": {}}, "data": {"capacity": 100_000}}
    else:
        config = load_config(words)
    return "--render-only" in argv, config


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit code: 0 when everything needed is there, 1 when not, 2 for a wrong argument."""
    if {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0
    try:
        result = main(argv)
    except ValueError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
