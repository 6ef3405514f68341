"""Where the time goes: env, plan, wait (for a batch), update, evaluation, rest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTS = ("env", "plan", "wait", "update", "evaluation")


class Clock:
    """Seconds per part; an inner part's time is not counted in the outer one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._offset, self._start = 0.0, time.monotonic()
        self._stack: list[str] = []
        self._mark = self._start

    @property
    def total(self) -> float:
        """Seconds since the run began, over every time it was resumed."""
        return self._offset + time.monotonic() - self._start

    @property
    def booked_at(self) -> float:
        """When time was booked last: with every decision, batch and update."""
        return self._mark

    def begin(self) -> None:
        """Count from now, on top of what a resumed run had; starting other ranks was set-up."""
        self._start = time.monotonic()

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Book the time within under `part`; nested measurements pause it. Evaluation keeps what is inside it."""
        outer = self._stack[-1] if self._stack else None
        self._book(outer)
        self._stack.append("evaluation" if outer == "evaluation" else part)
        try:
            yield
        finally:
            self._book(self._stack.pop())

    def split(self) -> dict[str, float]:
        """Seconds by part under the names `time/...`, with what no part claims as `time/rest`."""
        rest = max(0.0, self.total - sum(self.seconds.values()))
        return {f"time/{name}": seconds for name, seconds in {**self.seconds, "rest": rest}.items()}

    def state_dict(self) -> dict[str, float]:
        """Seconds so far."""
        return {**self.seconds, "total": self.total}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint's seconds."""
        self.seconds = {name: state[name] for name in PARTS}
        self._offset, self._start = state["total"], time.monotonic()

    def _book(self, part: str | None) -> None:
        now = time.monotonic()
        if part is not None:
            self.seconds[part] += now - self._mark
        self._mark = now


def resident_mb() -> float:
    """Resident megabytes of this process without mapped files, which the system takes back as it needs to.

    NaN where the system does not tell.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "RssFile:"))}
        return (kib["VmRSS"] - kib["RssFile"]) * 1024 / 1e6
    except (OSError, ValueError, IndexError, KeyError):
        return float("nan")
