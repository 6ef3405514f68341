"""Runs of this program in forked copies of a process that has loaded everything: a fresh start costs milliseconds."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_S = 0.002


class Forked:
    """`call` in a child that leads a process group of its own; what it prints goes to the file `log`."""

    def __init__(self, call: Callable[[], int], *, log: Path) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(call, log)

    def exit_code(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None

    def wait(self, *, timeout_s: float, until: Callable[[], bool] = lambda: False) -> int | None:
        """The exit code, or None once `timeout_s` have passed or `until` holds."""
        deadline = time.monotonic() + timeout_s
        while (code := self.exit_code()) is None and time.monotonic() < deadline and not until():
            time.sleep(POLL_S)
        return code

    def kill(self, *, group: bool) -> None:
        """SIGKILL for the whole group, or for the child alone, which must take its own children with it."""
        (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _become(call: Callable[[], int], log: Path) -> None:
    os.setpgid(0, 0)
    for number, (name, flags) in enumerate(((os.devnull, os.O_RDONLY), (log, os.O_WRONLY), (log, os.O_WRONLY))):
        os.dup2(os.open(name, flags | (os.O_CREAT | os.O_APPEND if number else 0), 0o644), number)
    code = 1
    try:
        code = call()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's is cleaned up by the child


def group_members(group: int) -> Sequence[int]:
    """Process ids that belong to a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            members.append(int(entry.name))
    return members
