"""Image replay: rows stored once, windows drawn by a sampler, content recovered from disk after any crash.

Each stream is a ring of its own. Rows carry a number that never repeats within a stream, so a run of rows stays
identified while the ring turns, and the log on disk needs no index.
"""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.envs.protocol import Step
from datamodules.folder import ReplayFolder, require_same
from datamodules.frames import MemoryFrames
from datamodules.locking import one_at_a_time
from datamodules.rows import ReplayMismatch, ReplayRowInvalid, empty_table, frame_bytes, row_bytes
from datamodules.samplers.uniform import Uniform
from datamodules.segments import SegmentLog
from datamodules.shards import Shards
from datamodules.stream import Stream
from datamodules.windows import Content, Sampler
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

STATE_FORMAT = 1
MAX_SEGMENT_BYTES = 1 << 26


class ReplayTooLarge(RuntimeError):
    """The capacity does not fit in memory; names the bytes needed and available."""


def available_bytes() -> int:
    """Memory that can be taken without swapping: the machine's, or the container's where that is less."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or "max" for no limit
        return machine
    return min(machine, limit - used + int(statistics["inactive_file"]))


class Replay:
    """Rows of `streams` environments in one preallocated store, on disk as well when a `folder` is given.

    capacity: rows over all streams, each having an equal share. flush_rows: rows of a block on disk; a crash loses
    at most the open block of each stream, a power loss at most its open episode. sampler: chooses the windows, by
    default uniformly. memory_limit_bytes: refuse a larger store (default: what is available). Raises ReplayTooLarge,
    ReplayMismatch, OSError. An OSError leaves every method without effect, to be called again. One process at a time
    uses a folder.
    Threads may share it: each method runs alone; hold `lock` around what must see nothing change between two calls.
    """

    def __init__(
        self,
        *,
        spec: EnvSpec,
        capacity: int,
        streams: int = 1,
        folder: Path | None = None,
        sampler: Sampler | None = None,
        flush_rows: int = 100,
        memory_limit_bytes: int | None = None,
    ) -> None:
        if streams < 1 or capacity < 2 * streams or flush_rows < 1:
            raise ValueError(f"capacity: expected 2 rows a stream or more, got {capacity=} {streams=} {flush_rows=}")
        self.spec, self.capacity = spec, capacity
        self.lock = threading.RLock()
        self._ring = capacity // streams
        self._refuse_if_too_large(memory_limit_bytes)
        self._table = empty_table(spec, self._ring * streams)
        # np.empty takes pages only when rows arrive
        self._pixels = np.empty((self._ring * streams, frame_bytes(spec)), np.uint8)
        self._sampler = Uniform() if sampler is None else sampler
        self._content: Content | None = None
        self._losses = 0
        self._folder = None
        if folder is not None:
            self._folder = ReplayFolder(Path(folder), spec, streams=streams, capacity=capacity)
        try:
            self._streams = [self._make_stream(i, flush_rows) for i in range(streams)]
        except (OSError, ReplayMismatch):
            self._leave()
            raise
        self._shards = Shards(spec, self._table, self._streams)

    def _refuse_if_too_large(self, limit: int | None) -> None:
        needed, available = self.bytes_needed(self.spec, self.capacity), available_bytes() if limit is None else limit
        if needed > available:
            raise ReplayTooLarge(
                f"replay of {self.capacity} rows needs {needed} bytes, {available} are available: "
                f"choose a capacity of at most {available // row_bytes(self.spec)} rows"
            )

    def _make_stream(self, i: int, flush_rows: int) -> Stream:
        log = None if self._folder is None else self._log(i, self._folder)
        slots = slice(i * self._ring, (i + 1) * self._ring)
        table = {key: values[slots] for key, values in self._table.items()}
        return Stream(self.spec, table, MemoryFrames(self._pixels[slots]), flush_rows=flush_rows, log=log)

    def _log(self, i: int, folder: ReplayFolder) -> SegmentLog:
        # a segment is deleted as a whole: an eighth of the ring is the most that is kept in excess
        size = min(MAX_SEGMENT_BYTES, max(1, self._ring // 8) * row_bytes(self.spec))
        return SegmentLog(folder.stream(i), segment_bytes=size)

    @staticmethod
    def bytes_needed(spec: EnvSpec, capacity: int) -> int:
        """Bytes of memory that `capacity` rows take."""
        return capacity * row_bytes(spec)

    @property
    @one_at_a_time
    def rows(self) -> int:
        """Rows in memory."""
        return sum(stream.rows for stream in self._streams)

    @property
    @one_at_a_time
    def next_rows(self) -> list[int]:
        """The number of each stream's next row: numbers are given once, discarded rows included."""
        return [stream.written for stream in self._streams]

    @property
    @one_at_a_time
    def episodes(self) -> int:
        """Episodes closed since the beginning, those that left the ring included."""
        return sum(stream.episodes for stream in self._streams)

    @property
    @one_at_a_time
    def env_steps(self) -> int:
        """Control steps of all rows since the beginning, discarded ones excluded."""
        return sum(stream.env_steps for stream in self._streams)

    @property
    @one_at_a_time
    def damaged_blocks(self) -> int:
        """Blocks on disk that could not be read and are left out."""
        return sum(stream.log.damaged_blocks for stream in self._streams if stream.log)

    def is_open(self, stream: int) -> bool:
        """Whether an episode of `stream` is under way."""
        return self._streams[stream].is_open

    @one_at_a_time
    def append(self, stream: int, step: Step, action: NDArray[np.float32]) -> None:
        """Store the arrival row of `step`, reached by `action` [A]; raises ReplayRowInvalid, OSError."""
        if not 0 <= stream < len(self._streams):
            raise ReplayRowInvalid(f"stream: expected 0 to {len(self._streams) - 1}, got {stream}")
        self._content = None
        self._streams[stream].append(step, action)

    @one_at_a_time
    def truncate(self, stream: int) -> None:
        """Close the open episode of `stream` at its newest row (is_last, not is_terminal), if there is one."""
        self._content = None
        self._streams[stream].truncate()

    @one_at_a_time
    def discard_open(self) -> None:
        """Drop the rows of every open episode, and their env_steps."""
        self._content = None
        self._losses += any(stream.is_open for stream in self._streams)
        for stream in self._streams:
            stream.discard_open()

    @one_at_a_time
    def flush(self) -> None:
        """Make every row durable; raises OSError."""
        for stream in self._streams:
            stream.flush()

    @one_at_a_time
    def sample(self, batch: int, length: int) -> Batch:
        """Windows [batch, length] that the sampler chose among all that fit in an episode; raises ReplayEmpty.

        Open episodes take part. The tensors are the caller's own.
        """
        windows = self._sampler.draw(self._current(), batch, length)
        return self._shards.gather(windows, length)

    def _current(self) -> Content:
        if self._content is None:
            self._content = self._shards.content(self._losses)
        return self._content

    @one_at_a_time
    def feedback(self, windows: Tensor, error: Tensor) -> None:
        """Tell the sampler the model's error [B] on `windows` [B, 3] of an earlier batch."""
        self._sampler.feedback(windows, error)

    @one_at_a_time
    def cursor(self) -> dict[str, Any]:
        """Where the sequence of batches stands."""
        return self._sampler.cursor()

    @one_at_a_time
    def rewind(self, cursor: dict[str, Any]) -> None:
        """Undo the draws since `cursor` was taken."""
        self._sampler.rewind(cursor)

    @one_at_a_time
    def state_dict(self) -> dict[str, Any]:
        """Flush, and return what `load_state_dict` needs, of plain values and arrays; raises OSError."""
        streams = [stream.state() for stream in self._streams]
        own = {"format": STATE_FORMAT, "capacity": self.capacity}
        return {**own, "streams": streams, "sampler": self._sampler.state_dict()}

    @one_at_a_time
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the rows and the draws of `state`, dropping later rows, on disk too.

        Raises ReplayMismatch for a state of another replay, and OSError; rows that the disk lost are left out and
        counted in `damaged_blocks`.
        """
        mine = {"format": STATE_FORMAT, "capacity": self.capacity}
        require_same({**state, "streams": len(state["streams"])}, {**mine, "streams": len(self._streams)})
        if state["sampler"].keys() != self._sampler.state_dict().keys():
            name = type(self._sampler).__name__.lower()
            raise ReplayMismatch(f"data.sampler: expected {name} as in this run, got a checkpoint of another sampler")
        self._content = None
        self._losses += 1
        for stream, stored in zip(self._streams, state["streams"], strict=True):
            stream.rollback(stored)
        self._sampler.load_state_dict(state["sampler"])

    @one_at_a_time
    def summary(self) -> str:
        """One line for the start of a run: capacity, memory and content."""
        size = self.bytes_needed(self.spec, self.capacity) / 1e9
        content = f"{self.rows} rows of {self.episodes} episodes stored, {self.damaged_blocks} damaged blocks left out"
        return f"replay: {self.capacity} rows in {len(self._streams)} streams, {size:.2f} GB; {content}"

    @one_at_a_time
    def close(self) -> None:
        """Make every row durable and let go of the folder; raises OSError."""
        self.flush()
        for stream in self._streams:
            if stream.log:
                stream.log.close()
        self._leave()

    def _leave(self) -> None:
        if self._folder is not None:
            self._folder.close()
