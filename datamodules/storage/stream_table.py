"""Streams side by side over one table: which runs of rows they hold, and a batch of windows out of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.storage.rows import frame_bytes
from datamodules.storage.stream import Stream
from datamodules.windows import Content
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec


class StreamTable:
    """Where the bytes of rows are: stream i has the slots [bases[i], bases[i] + its ring) of `table`."""

    def __init__(self, spec: EnvSpec, table: dict[str, NDArray[Any]], streams: Sequence[Stream]) -> None:
        self._spec, self._table, self._streams = spec, table, streams
        self._rings = np.array([stream.ring for stream in streams])
        self._bases = np.cumsum(self._rings) - self._rings

    def content(self, losses: int) -> Content:
        """What can be sampled now."""
        return Content(tuple(stream.live() for stream in self._streams), int(self._rings.max()), losses)

    def gather(self, windows: NDArray[np.int64], length: int) -> Batch:
        """The windows named by (draw, stream, first row) [batch, 3], copied: a batch is the caller's own."""
        stream, first = windows[:, 1], windows[:, 2]
        rows = first[:, None] + np.arange(length)
        slots = self._bases[stream][:, None] + rows % self._rings[stream][:, None]
        fields = {f: torch.from_numpy(np.take(v, slots, axis=0)) for f, v in self._table.items() if f != "env_steps"}
        pixels = np.empty((len(first), length, frame_bytes(self._spec)), np.uint8)
        for out, i, row in zip(pixels, stream.tolist(), first.tolist(), strict=True):
            self._streams[i].frames.copy(row, out)
        fields["pixels"] = torch.from_numpy(pixels).reshape(*slots.shape, *self._spec.pixels)
        return Batch(**fields, windows=torch.from_numpy(windows))
