"""Image replay: rows stored once, windows drawn by a sampler, content recovered from disk after any crash.

Each stream is a ring of its own. Rows carry a number that never repeats within a stream, so a run of rows stays
identified while the ring turns, and the log on disk needs no index.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Step
from datamodules.observation import image_bytes
from datamodules.storage.budget import DAMAGE_LIMIT, ReplayDamaged, check_lost_rows, plan
from datamodules.storage.durable import retry_writes, synchronized
from datamodules.storage.folder import ReplayFolder, require_same_counts
from datamodules.storage.frames import Frames, MappedFrames, MemoryFrames
from datamodules.storage.rows import ReplayMismatch, ReplayRowInvalid, empty_table
from datamodules.storage.stream import Stream, StreamTable
from datamodules.window_source import WindowSource
from datamodules.windows import Content, Sampler, require_same_sampler
from worldmodel.errors import BadValue
from worldmodel.spec import EnvSpec

STATE_FORMAT = 1


class Replay(WindowSource):
    """Rows of `streams` environments in one preallocated store, on disk as well when a `folder` is given.

    capacity: rows over all streams, each having an equal share. flush_rows: rows of a block on disk; the files lose at
    most the open block of each stream by a crash, its open episode by a power loss, but a resumed run goes back to its
    last checkpoint and drops later rows. sampler: chooses the windows, by default uniformly. memory_limit_bytes: where
    the rows take more, frames stay on disk and are mapped (default: half of what is available). processes: replays
    like this one on the machine. damage_limit: share of rows that may be lost. across_episodes: as in `sample`.
    path: the folder. budget: what is taken.
    Raises ReplayTooLarge, ReplayMismatch, ReplayDamaged, OSError. Disk errors that pass are waited for;
    ReplayWriteFailed, an OSError, leaves every method but `load_state_dict` without effect, to be called again.
    One process at a time uses a folder.
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
        processes: int = 1,
        damage_limit: float = DAMAGE_LIMIT,
        across_episodes: bool = False,
    ) -> None:
        if streams < 1 or capacity < 2 * streams or flush_rows < 1:
            raise BadValue(f"capacity: expected 2 rows a stream or more, got {capacity=} {streams=} {flush_rows=}")
        super().__init__(sampler, across_episodes=across_episodes)
        self.spec, self.capacity = spec, capacity
        self._ring = capacity // streams
        self.path = None if folder is None else Path(folder)
        self.budget = plan(
            spec,
            capacity,
            streams=streams,
            flush_rows=flush_rows,
            folder=self.path,
            memory_limit=memory_limit_bytes,
            processes=processes,
        )
        self._table = empty_table(spec, self._ring * streams)
        self._content: Content | None = None
        self._losses = 0
        self._folder = None
        if self.path is not None:
            self._folder = ReplayFolder(self.path, spec, streams=streams, capacity=capacity)
        try:
            self._streams = [self._make_stream(i, flush_rows) for i in range(streams)]
            self._settle(damage_limit)
        except (OSError, ReplayMismatch, ReplayDamaged):
            self._leave()
            raise
        self._stream_table = StreamTable(spec, self._table, self._streams)

    def _make_stream(self, i: int, flush_rows: int) -> Stream:
        budget, slots = self.budget, slice(i * self._ring, (i + 1) * self._ring)
        log = None if self._folder is None else self._folder.log(i, segment_bytes=budget.segment_bytes)
        table = {key: values[slots] for key, values in self._table.items()}
        frames: Frames
        if budget.mapped:
            sizes = {"frame_bytes": image_bytes(self.spec), "capacity": budget.tail_rows}
            frames = MappedFrames(**sizes, resident=budget.resident)
        else:
            frames = MemoryFrames(np.empty((self._ring, image_bytes(self.spec)), np.uint8))
        return Stream(self.spec, table, frames, flush_rows=flush_rows, log=log)

    def _settle(self, damage_limit: float) -> None:
        """Go on with what was found on disk, unless too much of it is lost; raises ReplayDamaged, OSError."""
        logs = [stream.log for stream in self._streams if stream.log is not None]
        lost, stored = sum(log.lost_rows for log in logs), sum(log.rows - log.first_row for log in logs)
        check_lost_rows([self.path], lost=lost, stored=stored, blocks=self.damaged_blocks, limit=damage_limit)
        if self._folder is not None:
            self._folder.recovered()

    @property
    @synchronized
    def rows(self) -> int:
        """Rows in memory."""
        return sum(stream.rows for stream in self._streams)

    @property
    @synchronized
    def longest(self) -> int:
        """Rows in memory of the longest run that a window must fit in: of one episode, or of several."""
        return self._drawable().longest

    @property
    @synchronized
    def next_rows(self) -> list[int]:
        """The number of each stream's next row: numbers are given once, discarded rows included."""
        return [stream.written for stream in self._streams]

    @property
    @synchronized
    def episodes(self) -> int:
        """Episodes closed since the beginning, those that left the ring included."""
        return sum(stream.episodes for stream in self._streams)

    @property
    @synchronized
    def env_steps(self) -> int:
        """Control steps of all rows since the beginning, discarded ones excluded."""
        return sum(stream.env_steps for stream in self._streams)

    @property
    @synchronized
    def damaged_blocks(self) -> int:
        """Blocks on disk that could not be read and are left out."""
        headers = 0 if self._folder is None else self._folder.broken_headers
        return headers + sum(stream.log.damaged_blocks for stream in self._streams if stream.log)

    @property
    @synchronized
    def lost_rows(self) -> int:
        """Rows on disk that could not be read, of those that the folder should hold."""
        return sum(stream.log.lost_rows for stream in self._streams if stream.log)

    @synchronized
    def rewarded_rows(self) -> int:
        """Rows in memory, of those that an action led to, whose reward is not the most frequent one.

        Where rewards are dense these are nearly all, where they are sparse they are what was found.
        """
        rewards = np.concatenate([stream.rewards() for stream in self._streams])
        counts = np.unique(rewards, return_counts=True)[1]
        return int(counts.sum() - counts.max(initial=0))

    def is_open(self, stream: int) -> bool:
        """Whether an episode of `stream` is under way."""
        return self._streams[stream].is_open

    @synchronized
    @retry_writes
    def append(self, stream: int, step: Step, action: NDArray[Any]) -> None:
        """Store the arrival row of `step`, reached by `action` [A]; raises ReplayRowInvalid, OSError."""
        if not 0 <= stream < len(self._streams):
            raise ReplayRowInvalid(f"stream: expected 0 to {len(self._streams) - 1}, got {stream}")
        self._content = None
        self._streams[stream].append(step, action)

    @synchronized
    @retry_writes
    def truncate(self, stream: int) -> None:
        """Close the open episode of `stream` at its newest row (is_last, not is_terminal), if there is one."""
        self._content = None
        self._streams[stream].truncate()

    @synchronized
    @retry_writes
    def discard_open(self) -> None:
        """Drop the rows of every open episode, and their env_steps."""
        self._content = None
        self._losses += any(stream.is_open for stream in self._streams)
        for stream in self._streams:
            stream.discard_open()

    @synchronized
    @retry_writes
    def flush(self) -> None:
        """Make every row durable; raises OSError."""
        for stream in self._streams:
            stream.flush()

    def _current(self) -> Content:
        if self._content is None:
            self._content = self._stream_table.content(self._losses)
        return self._content

    @synchronized
    @retry_writes
    def state_dict(self) -> dict[str, Any]:
        """Flush, and return what `load_state_dict` needs, of plain values and arrays; raises OSError."""
        streams = [stream.state() for stream in self._streams]
        own = {"format": STATE_FORMAT, "capacity": self.capacity}
        return {**own, "streams": streams, "sampler": self._sampler.state_dict()}

    @synchronized
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the rows and the draws of `state`, dropping later rows, on disk too.

        Raises ReplayMismatch for a state of another replay, and OSError: then open the folder anew, which is as it was
        or partly rolled back. Rows that the disk lost are left out and counted in `damaged_blocks`.
        """
        mine = {"format": STATE_FORMAT, "capacity": self.capacity}
        require_same_counts({**state, "streams": len(state["streams"])}, {**mine, "streams": len(self._streams)})
        require_same_sampler(self._sampler, state["sampler"])
        self._content = None
        self._losses += 1
        for stream, stored in zip(self._streams, state["streams"], strict=True):
            stream.rollback(stored)
        self._sampler.load_state_dict(state["sampler"])

    @synchronized
    def summary(self) -> str:
        """One line for the start of a run: capacity, memory, disk, content and damage."""
        content = f"{self.rows} rows of {self.episodes} episodes stored"
        damage = f"{self.damaged_blocks} damaged blocks left out"
        if self.damaged_blocks:
            damage += f" ({self.lost_rows} rows lost; set aside in {self.path}/stream_*/damaged)"
        return f"replay: {self.capacity} rows in {len(self._streams)} streams, {self.budget}; {content}, {damage}"

    @synchronized
    @retry_writes
    def close(self) -> None:
        """Make every row durable and let go of the folder; raises OSError."""
        # not by `flush`, which would insist as well
        for stream in self._streams:
            stream.flush()
        self._leave()

    def _leave(self) -> None:
        if self._folder is not None:
            self._folder.close()
