"""Stored rows as a source of batches: a sampler chooses the windows, a table of streams has their bytes."""

import threading
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.samplers.uniform import Uniform
from datamodules.storage.durable import synchronized
from datamodules.storage.stream import StreamTable
from datamodules.windows import Content, Sampler
from worldmodel.interfaces import Batch


class WindowSource(ABC):
    """Windows of rows in the order that a sampler decides (default: uniformly).

    Threads may share it: each method runs alone; hold `lock` around what must see nothing change between two calls.
    """

    _stream_table: StreamTable

    def __init__(self, sampler: Sampler | None, *, across_episodes: bool = False) -> None:
        self.lock = threading.RLock()
        self._sampler = Uniform() if sampler is None else sampler
        self._across_episodes = across_episodes
        self._joined: tuple[Content, Content] | None = None  # the content that was joined last, and how it is then

    @abstractmethod
    def _current(self) -> Content:
        """What can be drawn now."""

    @synchronized
    def sample(self, batch: int, length: int) -> Batch:
        """Windows [batch, length] that the sampler chose among all that fit in an episode; raises ReplayEmpty.

        Open episodes take part. The tensors are the caller's own. With `across_episodes` a window may go on in the
        episode that was recorded next, from its row with `is_first` on: so an episode's first and last rows are drawn
        as often as others, and short episodes too.
        """
        return self._stream_table.gather(self._sampler.draw(self._drawable(), batch, length), length)

    def _drawable(self) -> Content:
        """The runs that windows must fit in."""
        content = self._current()
        if not self._across_episodes:
            return content
        if self._joined is None or self._joined[0] is not content:
            self._joined = content, content.joined()
        return self._joined[1]

    @synchronized
    def count_rows(self, length: int) -> int:
        """Rows that windows of `length` rows can hold: those that are stored, in runs that are long enough."""
        return self._drawable().count_rows(length)

    @synchronized
    def every(self, length: int) -> Batch:
        """Every window of `length` rows inside an episode once, without a draw, for few data; raises ReplayEmpty."""
        index = self._current().index(length)
        stream, first = index.locate(np.arange(index.total))
        return self._stream_table.gather(np.stack([np.zeros_like(stream), stream, first], 1), length)

    @synchronized
    def feedback(self, windows: Tensor, error: Tensor) -> None:
        self._sampler.feedback(windows, error)

    @synchronized
    def cursor(self) -> dict[str, Any]:
        return self._sampler.cursor()

    @synchronized
    def rewind(self, cursor: dict[str, Any]) -> None:
        self._sampler.rewind(cursor)
