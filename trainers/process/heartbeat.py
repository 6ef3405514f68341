"""Ranks that stand still are noticed by the others: each writes a file again and again, and reads those of all."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = str(Path(__file__).parents[2])
LONGEST_INTERVAL_S = 5.0
BEGINNING_S = 1800.0  # before the first batch, when data may be copied or dealt out anew


@dataclass(slots=True)
class _Seen:
    """What a rank's file said last, and for how many seconds it and its progress have said the same."""

    said: tuple[str, ...] = ()
    silent_s: float = 0.0
    still_s: float = 0.0


class Heartbeat:
    """A thread that says that this rank lives, and calls `end` where a rank, or all of them, stand still for too long.

    A rank is lost when its file does not change: its process was stopped or its machine is gone. Where all processes
    live, but none of them gets on, main threads wait for each other: a rank that is busy, such as one that evaluates
    while the others wait for it, gets on. Only time in which this thread ran counts: processes that were all stopped
    and woken again have lost nobody.

    Args:
        folder: where the files are, seen by all ranks.
        rank, ranks: this one's number, and how many there are.
        timeout_s: how long a rank may stand still.
        end: is told which rank stands still; called once, in the thread.
    """

    def __init__(self, folder: Path, *, rank: int, ranks: int, timeout_s: float, end: Callable[[str], None]) -> None:
        self._folder, self._rank, self._timeout_s, self._end = folder, rank, timeout_s, end
        self.interval_s = min(LONGEST_INTERVAL_S, timeout_s / 10)
        self.progress: Callable[[], object] | None = None  # what changes while the main thread gets on
        self._seen = {other: _Seen() for other in range(ranks)}
        self._count, self._last, self._watches = 0, time.monotonic(), False
        self._main, self._closed = threading.main_thread().ident, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._rank == 0:  # what a session left that was killed; a rank that is here already writes again
            for left in self._folder.glob("rank_*"):
                left.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self._path(self._rank).unlink(missing_ok=True)
        with suppress(OSError):  # other ranks' files are still there
            self._folder.rmdir()

    def watch(self) -> None:
        """Expect a sign of life of all other ranks from now on."""
        self._watches = True

    def stop_watching(self) -> None:
        """Other ranks may end."""
        self._watches = False

    def beat(self, now: float) -> str | None:
        """Say that this rank lives, and read what the others say, at a time in seconds; who stands still, if any."""
        self._count += 1
        mark = "" if self.progress is None else repr(self.progress())
        with suppress(OSError):  # a rank that cannot write is silent for the others
            self._path(self._rank).write_text(f"{os.getpid()}.{self._count}\n{mark}\n{self._place()}")
        passed, self._last = min(now - self._last, 2 * self.interval_s), now
        if not self._watches:
            return None
        for rank, seen in self._seen.items():
            said = self._read(rank)
            # a file that is gone is one that does not change: its rank has ended while others wait for it
            seen.silent_s = 0.0 if said and said[:1] != seen.said[:1] else seen.silent_s + passed
            seen.still_s = 0.0 if said and said[1:2] != seen.said[1:2] else seen.still_s + passed
            seen.said = said or seen.said
        return self._verdict()

    def _verdict(self) -> str | None:
        silent = [rank for rank, seen in self._seen.items() if seen.silent_s > self._timeout_s and rank != self._rank]
        if silent:
            where = "; ".join(f"rank {rank} was last at {self._where(rank)}" for rank in silent)
            return f"rank {', '.join(map(str, silent))} gave no sign of life for {self._timeout_s:g} s: {where}"
        began = any(seen.said[1:2] != ("",) for seen in self._seen.values() if seen.said)
        limit_s = self._timeout_s if began else max(self._timeout_s, BEGINNING_S)
        if all(seen.still_s > limit_s for seen in self._seen.values()):
            where = "; ".join(f"rank {rank} stands at {self._where(rank)}" for rank in self._seen)
            return f"no rank got on for {limit_s:g} s: {where}"
        return None

    def _where(self, rank: int) -> str:
        said = self._seen[rank].said
        return said[2] if len(said) > 2 else "no place that is known"

    def _run(self) -> None:
        while not self._closed.wait(self.interval_s):
            if lost := self.beat(time.monotonic()):
                self._end(lost)
                return

    def _read(self, rank: int) -> tuple[str, ...]:
        try:
            return tuple(self._path(rank).read_text().split("\n"))
        except OSError:
            return ()

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank_{rank:02d}"

    def _place(self) -> str:
        """The innermost line of the project that the main thread is at."""
        frame: FrameType | None = sys._current_frames().get(self._main or 0)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(ROOT) and "/.venv/" not in name:
                return f"{name[len(ROOT) + 1 :]}:{frame.f_lineno} ({frame.f_code.co_name})"
            frame = frame.f_back
        return "no line of the project"
