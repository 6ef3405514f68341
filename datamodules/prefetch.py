"""The next batch, prepared by a thread while the learner computes."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from worldmodel.interfaces import Batch


@runtime_checkable
class Source(Protocol):
    """Where batches come from; threads may share it."""

    def sample(self, batch: int, length: int) -> Batch:
        """The next windows [batch, length]."""

    def count_rows(self, length: int) -> int:
        """Rows that windows of `length` rows can hold."""

    def feedback(self, windows: Tensor, error: Tensor) -> None:
        """The model's error [B] on `windows` [B, 3] of an earlier batch."""

    def cursor(self) -> dict[str, Any]:
        """Where the sequence of batches stands."""

    def rewind(self, cursor: dict[str, Any]) -> None:
        """Undo the batches since `cursor` was taken."""


class Feed:
    """Batches [batch, length] from a source, in the order in which the source alone would give them.

    Every batch has memory of its own: nothing is reused before its last reader lets go of it. Where there is a GPU it
    is page-locked memory, of which torch keeps blocks and waits for copies that are under way.
    """

    def __init__(self, source: Source, *, batch: int, length: int) -> None:
        self._source, self._batch, self._length = source, batch, length
        self._pin = torch.cuda.is_available()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: Future[Batch] | None = None
        self._before: dict[str, Any] = {}

    def take(self) -> Batch:
        """The batch that was prepared, else one sampled now; raises what sampling raises."""
        ahead, self._ahead = self._ahead, None
        return self._sample() if ahead is None else ahead.result()

    def prepare(self) -> None:
        """Start on the next batch. Until it is taken or put back, rows may change only where order does not matter."""
        if self._ahead is None:
            self._before = self._source.cursor()
            self._ahead = self._thread.submit(self._sample)

    def put_back(self) -> None:
        """As if the next batch had not been prepared: it is drawn again later."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.exception()  # one that sampling raised comes again when it is drawn again
            self._source.rewind(self._before)

    def close(self) -> None:
        """End the thread."""
        self.put_back()
        self._thread.shutdown()

    def _sample(self) -> Batch:
        batch = self._source.sample(self._batch, self._length)
        return batch.pinned() if self._pin else batch
