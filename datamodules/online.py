"""The LightningDataModule over a replay that grows while the learner reads it."""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch

from datamodules.replay import Replay
from worldmodel.interfaces import Batch

# a length, so that Lightning fetches each batch when it is needed and never one ahead; Lightning sums it over ranks
ENDLESS = 2**40


class Windows:
    """An endless iterable of freshly sampled batches: what was collected a moment ago can already be in the next."""

    def __init__(self, replay: Replay, *, batch: int, length: int) -> None:
        self._replay, self._batch, self._length = replay, batch, length

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._replay.sample(self._batch, self._length)


class OnlineData(pl.LightningDataModule):
    """Windows [batch, length] from this rank's replay."""

    def __init__(self, replay: Replay, *, batch: int, length: int) -> None:
        super().__init__()
        for name, number, least in (("batch", batch, 1), ("length", length, 2)):
            if number < least:
                raise ValueError(f"data.{name}: expected at least {least}, got {number}")
        self.replay, self.batch, self.length = replay, batch, length

    def train_dataloader(self) -> Windows:
        """Batches for the learner."""
        return Windows(self.replay, batch=self.batch, length=self.length)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Frames cross to the device as bytes."""
        return batch.to(device)
