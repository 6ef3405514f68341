"""The LightningDataModule over rows that may grow while the learner reads them, the next batch prepared meanwhile."""

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor

from worldmodel.errors import BadValue
from worldmodel.interfaces import Batch

# a length, so that Lightning fetches each batch when it is needed and never one ahead; Lightning sums it over ranks
ENDLESS = 2**40


@runtime_checkable
class BatchSource(Protocol):
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


class EndlessLoader:
    """What Lightning takes for a data loader: always the same iterator of batches, also where an epoch begins anew."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class WindowDataModule(pl.LightningDataModule):
    """Windows [batch, length] from this rank's source; a training loop puts itself in the place of `batches`.

    Every batch has memory of its own: nothing is reused before its last reader lets go of it. Where there is a GPU it
    is page-locked memory, of which torch keeps blocks and waits for copies that are under way.

    Args:
        source: gives windows and is told the model's errors.
        batch: windows of a batch.
        length: rows of a window.
        prefetch: whether `prepare` starts a thread on the next batch; the batches are the same.
    """

    def __init__(self, source: BatchSource, *, batch: int, length: int, prefetch: bool = False) -> None:
        super().__init__()
        for name, number, least in (("batch", batch, 1), ("length", length, 2)):
            if number < least:
                raise BadValue(f"data.{name}: expected at least {least}, got {number}")
        self.source, self.batch, self.length, self.prefetch = source, batch, length, prefetch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: Future[Batch] | None = None
        self._before: dict[str, Any] = {}
        self.batches: Generator[Batch] = (self.next_batch() for _ in count())

    def train_dataloader(self) -> EndlessLoader:
        """Batches for the learner, each made when Lightning asks for it."""
        return EndlessLoader(self.batches)

    def next_batch(self) -> Batch:
        """The batch that was prepared, else one sampled now; raises what sampling raises.

        What was collected a moment ago can already be in it.
        """
        ahead, self._ahead = self._ahead, None
        return self._sample() if ahead is None else ahead.result()

    def _sample(self) -> Batch:
        batch = self.source.sample(self.batch, self.length)
        return batch.pinned() if torch.cuda.is_available() else batch

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Frames cross to the device as bytes."""
        return batch.to(device)

    @property
    def rows(self) -> int:
        """Rows of the source that a window can hold."""
        return self.source.count_rows(self.length)

    def prepare(self) -> None:
        """Start on the next batch. Until it is taken or put back, rows may change only where order does not matter."""
        if self.prefetch and self._ahead is None:
            self._before = self.source.cursor()
            self._ahead = self._thread.submit(self._sample)

    def put_back(self) -> None:
        """No batch is ahead any more, and it is drawn again later: call before the state of the source is saved."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.exception()  # one that sampling raised comes again when it is drawn again
            self.source.rewind(self._before)

    def feedback(self, batch: Batch, error: Tensor | None) -> None:
        """Tell the source the model's error [B] on a batch of its own."""
        if batch.windows is not None and error is not None:
            self.source.feedback(batch.windows, error)

    def teardown(self, stage: str) -> None:
        """End the thread."""
        self.put_back()
        self._thread.shutdown()
