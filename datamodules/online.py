"""The LightningDataModule over rows that may grow while the learner reads them."""

from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.prefetch import Feed, Source
from worldmodel.errors import BadValue
from worldmodel.interfaces import Batch

# a length, so that Lightning fetches each batch when it is needed and never one ahead; Lightning sums it over ranks
ENDLESS = 2**40


class EndlessLoader:
    """What Lightning takes for a data loader: always the same iterator of batches, also where an epoch begins anew."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class OnlineData(pl.LightningDataModule):
    """Windows [batch, length] from this rank's source; a training loop puts itself in the place of `batches`.

    Args:
        source: gives windows and is told the model's errors.
        batch: windows of a batch.
        length: rows of a window.
        prefetch: whether `prepare` starts a thread on the next batch; the batches are the same.
    """

    def __init__(self, source: Source, *, batch: int, length: int, prefetch: bool = False) -> None:
        super().__init__()
        for name, number, least in (("batch", batch, 1), ("length", length, 2)):
            if number < least:
                raise BadValue(f"data.{name}: expected at least {least}, got {number}")
        self.source, self.batch, self.length, self.prefetch = source, batch, length, prefetch
        self._feed = Feed(source, batch=batch, length=length)
        self.batches: Generator[Batch] = (self.next_batch() for _ in count())

    def train_dataloader(self) -> EndlessLoader:
        """Batches for the learner, each made when Lightning asks for it."""
        return EndlessLoader(self.batches)

    def next_batch(self) -> Batch:
        """What was collected a moment ago can already be in it."""
        return self._feed.take()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Frames cross to the device as bytes."""
        return batch.to(device)

    @property
    def rows(self) -> int:
        """Rows of the source that a window can hold."""
        return self.source.count_rows(self.length)

    def prepare(self) -> None:
        """Another batch will be needed before the rows change."""
        if self.prefetch:
            self._feed.prepare()

    def put_back(self) -> None:
        """No batch is ahead any more: call before the state of the source is saved."""
        self._feed.put_back()

    def feedback(self, batch: Batch, error: torch.Tensor | None) -> None:
        """Tell the source the model's error [B] on a batch of its own."""
        if batch.windows is not None and error is not None:
            self.source.feedback(batch.windows, error)

    def teardown(self, stage: str) -> None:
        """End the thread."""
        self._feed.close()
