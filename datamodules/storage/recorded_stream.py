"""The log of one stream opened for reading: as it was at one moment, or as a checkpoint counts it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.observation import image_bytes, split_images
from datamodules.storage.durable import retry
from datamodules.storage.frames import FileSnapshot, MappedFrames
from datamodules.storage.log_format import Kind, StoredBlock
from datamodules.storage.log_reader import LogReader, Source
from datamodules.storage.rows import FRAMES, VECTOR, ReplayMismatch
from datamodules.storage.stream import Stream
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec


class LogSnapshot:
    """The segments of one log as they were at one moment. bytes: of them all."""

    def __init__(self, path: Path, *, manifest_expected: bool, resident: bool) -> None:
        self.path, self._resident = path, resident
        self.maps: dict[Path, NDArray[np.uint8]] = {}
        self.reader = LogReader(path, manifest_expected=manifest_expected, take=self._hold)
        self.bytes = sum(len(whole) for whole in self.maps.values())

    def _hold(self, paths: Sequence[Path]) -> dict[Path, Source]:
        snapshots = [retry(partial(FileSnapshot, path, resident=self._resident)) for path in paths]
        self.maps = {file.path: file.whole for file in snapshots}
        return {file.path: partial(retry, file.read) for file in snapshots}


class RecordedStream:
    """One log read into a stream that numbers its rows anew, without the gaps.

    table: every column but that of images, by row. state: of the log in a checkpoint, up to which it is read; without
    one it is read to its end.
    Raises ReplayMismatch where the log is not that of the state.
    """

    def __init__(
        self, spec: EnvSpec, table: dict[str, NDArray[Any]], log: LogSnapshot, state: Mapping[str, Any] | None = None
    ) -> None:
        frames = MappedFrames(frame_bytes=image_bytes(spec), capacity=1)
        self.stream = Stream(spec, table, frames, flush_rows=1, log=None)
        frames.hold(log.maps)
        self.table, self._path, self._state = table, log.path, state
        self._numbers: list[tuple[int, int]] = []  # (first row in the log, first row here) of every block
        self._next_row = 0  # in the log
        log.reader.read(self._take)
        counters = log.reader.counters
        self.damaged_blocks = counters.damaged_blocks + log.reader.broken_manifests
        self.lost_rows = counters.lost_rows
        if state is not None:
            self.lost_rows = state["rows"] - log.reader.first[1] - self.stream.written

    def _take(self, stored: StoredBlock, path: Path) -> None:
        block, expected = stored.block, self._next_row
        if self._state is not None and block.number >= self._state["blocks"] - 1:
            if block.number >= self._state["blocks"]:
                return
            if stored.crc != self._state["crc"]:
                raise ReplayMismatch(f"{self._path}: expected the rows of the checkpoint, got another log's")
        self._next_row = block.next_row
        if block.first_row != expected:
            self.stream.interrupt()
        first_row = self.stream.written
        if block.kind is Kind.DROP:
            block = replace(block, rows=first_row - self.position(block.first_row - block.rows))
        self._numbers.append((block.first_row, first_row))
        self.stream.visit(replace(block, first_row=first_row), path, stored.begin)

    def position(self, number: int) -> int:
        """Which row here is the log's row `number`, or the next after it where that one is lost."""
        i = bisect_right(self._numbers, (number, -1))
        after = self._numbers[i][1] if i < len(self._numbers) else self.stream.written
        if i == 0:
            return after
        log_row, row = self._numbers[i - 1]
        return min(row + number - log_row, after)

    def env_steps(self, start: int, stop: int) -> int:
        """Control steps of the rows [start, stop)."""
        return int(self.table["env_steps"][start:stop].sum())

    def columns(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Rows [start, stop), copied, in the order of their columns in a block."""
        frames = np.empty((stop - start, image_bytes(self.stream.spec)), np.uint8)
        if frames.size:
            self.stream.frames.copy(start, frames)
        return {FRAMES: frames, **{key: values[start:stop].copy() for key, values in self.table.items()}}

    def trajectory(self, start: int, stop: int) -> Trajectory:
        """Rows [start, stop), copied."""
        spec, rows = self.stream.spec, self.columns(start, stop)
        observation = {name: np.ascontiguousarray(image) for name, image in split_images(spec, rows[FRAMES]).items()}
        observation |= {name: rows[VECTOR + name] for name in spec.vectors}
        fields = {key: rows[key] for key in ("action", "reward", "env_steps")}
        if not self.table["is_first"][start]:
            for values in fields.values():
                values[0] = 0
        return Trajectory(
            observation=observation,
            terminal=bool(self.table["is_terminal"][stop - 1]),
            name=f"{self._path} rows {start} to {stop - 1}",
            **fields,
        )
