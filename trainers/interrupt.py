"""Ctrl-C and SIGTERM as a request that the loop answers at the next safe moment."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """Remembers the first signal; a second one of the same kind takes its default course."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, gather: Callable[[Any], list[Any]]) -> bool:
        """Whether any rank was asked to stop: decided by all ranks together, never within the handler."""
        return any(signals is not None for signals in gather(self.received))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._previous[number])
