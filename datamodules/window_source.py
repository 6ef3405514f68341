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

    def __init__(self, sampler: Sampler | None) -> None:
        self.lock = threading.RLock()
        self._sampler = Uniform() if sampler is None else sampler

    @abstractmethod
    def _current(self) -> Content:
        """What can be drawn now."""

    @synchronized
    def sample(self, batch: int, length: int) -> Batch:
        """Windows [batch, length] that the sampler chose among all that fit in an episode; raises ReplayEmpty.

        Open episodes take part. The tensors are the caller's own.
        """
        return self._stream_table.gather(self._sampler.draw(self._current(), batch, length), length)

    @synchronized
    def count_rows(self, length: int) -> int:
        """Rows that windows of `length` rows can hold: those that are stored, in episodes that are long enough."""
        return self._current().count_rows(length)

    @synchronized
    def every(self, length: int) -> Batch:
        """Every window of `length` rows once, without a draw: for data that are few; raises ReplayEmpty."""
        index = self._current().index(length)
        stream, first = index.locate(np.arange(index.total))
        return self._stream_table.gather(np.stack([np.zeros_like(stream), stream, first], 1), length)

    @synchronized
    def feedback(self, windows: Tensor, error: Tensor) -> None:
        """Tell the sampler the model's error [B] on `windows` [B, 3] of an earlier batch."""
        self._sampler.feedback(windows, error)

    @synchronized
    def cursor(self) -> dict[str, Any]:
        """Where the sequence of batches stands."""
        return self._sampler.cursor()

    @synchronized
    def rewind(self, cursor: dict[str, Any]) -> None:
        """Undo the draws since `cursor` was taken."""
        self._sampler.rewind(cursor)
