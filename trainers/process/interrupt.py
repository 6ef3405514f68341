"""Ctrl-C, SIGTERM, SIGUSR1 and a closed terminal as a request that the loop answers at the next safe moment."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
REPEATED = (signal.SIGUSR1, signal.SIGHUP)  # by schedulers and shells, which pass them on


class Interrupted(Exception):
    """Work that can be repeated was broken off because a signal asked to stop."""


class Interrupt:
    """Remembers the first signal; a second one of the same kind goes to the handler that was there before.

    A second one of REPEATED is ignored, to the end of the process: schedulers send SIGUSR1 to many processes, which may
    pass it on late, and what follows a run that it stopped, such as its requeue, is not to be ended by it. SIGHUP, a
    terminal that was closed, comes from the shell and again when the shell ends; under nohup it stays without effect.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.asked = 0  # how often a loop asked: before every decision, and between updates
        self._previous: dict[int, Any] = {}
        self._terminals = [output for output in (1, 2) if os.isatty(output)]

    def __enter__(self) -> "Interrupt":
        self.claim()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            if number != self.received or number not in REPEATED:
                signal.signal(number, handler)

    def claim(self) -> None:
        """Take the signals, again where another handler was put over this one; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            ignored = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
            # a signal that came already stays with that handler
            if number != self.received and not ignored:
                self._previous.setdefault(number, signal.getsignal(number))
                signal.signal(number, self._handle)

    def is_set(self) -> bool:
        """Whether this rank was asked to stop."""
        self.asked += 1
        return self.received is not None

    def requested(self, sum_over_ranks: Callable[[list[int]], list[int]]) -> bool:
        """Whether any rank was asked to stop: decided by all ranks together, never within the handler."""
        asked = sum_over_ranks([int(self.received == number) for number in SIGNALS])
        self.received = next((number for number, ranks in zip(SIGNALS, asked, strict=True) if ranks), self.received)
        return any(asked)  # a signal may have come meanwhile, which only this rank knows of

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        signal.signal(number, signal.SIG_IGN if number in REPEATED else self._previous[number])
        if number == signal.SIGHUP:
            self._leave_terminals()

    def _leave_terminals(self) -> None:
        """Write to nowhere what would go to a terminal that is not there: it would be an error while a run is saved."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in self._terminals:
            os.dup2(nowhere, output)
        os.close(nowhere)
