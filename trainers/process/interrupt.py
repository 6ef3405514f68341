"""Ctrl-C, SIGTERM and SIGUSR1 as a request that the loop answers at the next safe moment."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """Work that can be repeated was broken off because a signal asked to stop."""


class Interrupt:
    """Remembers the first signal; a second one of the same kind goes to the handler that was there before.

    A second SIGUSR1 is ignored, to the end of the process: schedulers send this notice to many processes, which may
    pass it on late, and what follows a run that it stopped, such as its requeue, is not to be ended by it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.asked = 0  # how often a loop asked: before every decision, and between updates
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        self.claim()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            if (number, self.received) != (signal.SIGUSR1, signal.SIGUSR1):
                signal.signal(number, handler)

    def claim(self) -> None:
        """Take the signals, again where another handler was put over this one; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            # a signal that came already stays with that handler
            if number != self.received:
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
        signal.signal(number, signal.SIG_IGN if number == signal.SIGUSR1 else self._previous[number])
