"""Segment folders opened for reading: verified once, frames left on disk and mapped, other processes undisturbed."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.observation import image_bytes, split_images
from datamodules.samplers.uniform import Uniform
from datamodules.storage.budget import DAMAGE_LIMIT, check_lost_rows, folder_bytes, stays_cached
from datamodules.storage.durable import retry, synchronized
from datamodules.storage.folder import HEADER, read_header, require_same
from datamodules.storage.frames import FileSnapshot, MappedFrames
from datamodules.storage.log_format import Kind, StoredBlock
from datamodules.storage.log_reader import LogReader, Source
from datamodules.storage.rows import VECTOR, ReplayMismatch, empty_table, row_bytes
from datamodules.storage.stream import Stream, StreamTable
from datamodules.trajectory import Trajectory
from datamodules.window_source import WindowSource
from datamodules.windows import Content, Sampler, require_same_sampler
from worldmodel.spec import EnvSpec


class Recorded(WindowSource):
    """All intact rows of one or several segment folders, or of the `rank_*` folders within them; read-only.

    A run may go on there, and go back: what was there stays as it was, later rows are not seen. seed: of the windows
    drawn, where no sampler is given. holdout: share of the episodes, evenly spread in their order, of which no window
    is drawn.
    rows, episodes, env_steps: what is stored; the pieces of an episode that lost rows count as episodes. terminates:
    whether any of them ends by termination. lengths: rows of each episode [episodes]. held_out: numbers of the
    episodes held out. damaged_blocks, lost_rows: left out.
    damage_limit: share of all rows that may be lost. across_episodes: as in `sample`.
    Raises ReplayMismatch where there is no such folder or their specs differ, ReplayDamaged, and OSError.
    """

    def __init__(
        self,
        folder: Path | str | Sequence[Path | str],
        seed: int = 0,
        sampler: Sampler | None = None,
        holdout: float = 0.0,
        damage_limit: float = DAMAGE_LIMIT,
        across_episodes: bool = False,
    ) -> None:
        super().__init__(Uniform(seed=seed) if sampler is None else sampler, across_episodes=across_episodes)
        folders = [folder] if isinstance(folder, Path | str) else list(folder)
        self.folders = [rank for path in folders for rank in _ranks(Path(path))]
        headers = [read_header(rank) for rank in self.folders]
        self.spec = _one_spec(self.folders, [EnvSpec.from_json(header["spec"]) for header, _ in headers])
        resident = stays_cached(sum(map(folder_bytes, self.folders)))
        logs = [
            _Log(path, manifest_expected=header["format"] > 1, resident=resident)
            for rank, (header, _) in zip(self.folders, headers, strict=True)
            for path in sorted(rank.glob("stream_*"))
        ]
        if not logs:
            raise ReplayMismatch(f"{self.folders[0]}: expected folders stream_*, got none")
        # every row takes its bytes on disk, which bounds the rows before they are read
        rings = [log.bytes // row_bytes(self.spec) + 1 for log in logs]
        table = empty_table(self.spec, sum(rings))
        self._readers, base = list[_Reader](), 0
        for log, ring in zip(logs, rings, strict=True):
            slots = {key: values[base : base + ring] for key, values in table.items()}
            self._readers.append(_Reader(self.spec, slots, log))
            base += ring
        readers = self._readers
        self.damaged_blocks = sum(broken for _, broken in headers) + sum(reader.damaged_blocks for reader in readers)
        self.lost_rows = sum(reader.lost_rows for reader in readers)
        self.rows = sum(reader.stream.rows for reader in readers)
        check_lost_rows(
            self.folders,
            lost=self.lost_rows,
            stored=self.rows + self.lost_rows,
            blocks=self.damaged_blocks,
            limit=damage_limit,
        )
        self._stream_table = StreamTable(self.spec, table, [reader.stream for reader in readers])
        content = self._stream_table.content(losses=0)
        self._spans = [(i, *span) for i, spans in enumerate(content.spans) for span in spans.tolist()]
        self.held_out = _spread(holdout, len(self._spans))
        self._content = _without(content, set(self.held_out))
        self.lengths = np.array([stop - start for _, start, stop in self._spans], np.int64)
        self.episodes = len(self._spans)
        self.terminates = any(readers[i].ends_by_termination(stop) for i, _, stop in self._spans)
        self.env_steps = sum(readers[i].env_steps(start, stop) for i, start, stop in self._spans)

    def _current(self) -> Content:
        return self._content

    def trajectories(self) -> Iterator[Trajectory]:
        """Every episode in the order of recording, one at a time in memory.

        Where an episode's beginning was lost, its first remaining row becomes row 0 of a trajectory: what led there is
        unknown, so action, reward and env_steps are 0 in it.
        """
        return (self.trajectory(number) for number in range(self.episodes))

    def trajectory(self, number: int) -> Trajectory:
        """Episode `number` of the order of recording."""
        reader, start, stop = self._spans[number]
        return self._readers[reader].trajectory(start, stop)

    @synchronized
    def state_dict(self) -> dict[str, Any]:
        """Where the draws stand, of plain values and arrays."""
        return {"rows": self.rows, "episodes": self.episodes, "sampler": self._sampler.state_dict()}

    @synchronized
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the draws of `state`; raises ReplayMismatch where other rows are stored now."""
        require_same(state, {"rows": self.rows, "episodes": self.episodes})
        require_same_sampler(self._sampler, state["sampler"])
        self._sampler.load_state_dict(state["sampler"])

    def close(self) -> None:
        """Unmap the files; nothing can be read afterwards."""
        for reader in self._readers:
            reader.stream.frames.clear()
        self._readers = []


def _spread(share: float, among: int) -> list[int]:
    """A share of the numbers below `among`, evenly spread: one at least where there is a share, and never all."""
    count = min(max(round(share * among), share > 0), among - 1)
    return [(2 * i + 1) * among // (2 * count) for i in range(count)]


def _without(content: Content, episodes: Collection[int]) -> Content:
    """Content without the spans of these numbers, counted over all streams."""
    spans_left, first = [], 0
    for spans in content.spans:
        spans_left.append(spans[[first + i not in episodes for i in range(len(spans))]])
        first += len(spans)
    return replace(content, spans=tuple(spans_left))


def _ranks(folder: Path) -> list[Path]:
    if (folder / HEADER).is_file() or any(folder.glob("stream_*")):
        return [folder]
    ranks = sorted(path for path in folder.glob("rank_*") if path.is_dir())
    if not ranks:
        raise ReplayMismatch(f"{folder}: expected {HEADER} or rank_*/{HEADER}, got neither")
    return ranks


def _one_spec(folders: Sequence[Path], specs: Sequence[EnvSpec]) -> EnvSpec:
    for folder, spec in zip(folders, specs, strict=True):
        if (spec.observed, spec.action_dim) != (specs[0].observed, specs[0].action_dim):
            raise ReplayMismatch(
                f"{folder}: expected {specs[0].observed} observed and {specs[0].action_dim} actions as in "
                f"{folders[0]}, got {spec.observed} and {spec.action_dim}"
            )
    return specs[0]


class _Log:
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


class _Reader:
    """One log read into a stream that numbers its rows anew, without the gaps."""

    def __init__(self, spec: EnvSpec, table: dict[str, NDArray[Any]], log: _Log) -> None:
        frames = MappedFrames(frame_bytes=image_bytes(spec), capacity=1)
        self.stream = Stream(spec, table, frames, flush_rows=1, log=None)
        frames.hold(log.maps)
        self._table, self._path = table, log.path
        self._numbers: list[tuple[int, int]] = []  # (first row in the log, first row here) of every block
        self._next_row = 0  # in the log
        log.reader.read(self._take)
        counters = log.reader.counters
        self.damaged_blocks = counters.damaged_blocks + log.reader.broken_manifests
        self.lost_rows = counters.lost_rows

    def _take(self, stored: StoredBlock, path: Path) -> None:
        block, expected = stored.block, self._next_row
        self._next_row = block.next_row
        if block.first_row != expected:
            self.stream.interrupt()
        first_row = self.stream.written
        if block.kind is Kind.DROP:
            block = replace(block, rows=first_row - self._here(block.first_row - block.rows))
        self._numbers.append((block.first_row, first_row))
        self.stream.visit(replace(block, first_row=first_row), path, stored.begin)

    def _here(self, number: int) -> int:
        """Which row here is the log's row `number`, or the next after it where that one is lost."""
        i = bisect_right(self._numbers, (number, -1))
        after = self._numbers[i][1] if i < len(self._numbers) else self.stream.written
        if i == 0:
            return after
        log_row, row = self._numbers[i - 1]
        return min(row + number - log_row, after)

    def ends_by_termination(self, stop: int) -> bool:
        """Whether the row before `stop` is terminal."""
        return bool(self._table["is_terminal"][stop - 1])

    def env_steps(self, start: int, stop: int) -> int:
        """Control steps of the rows [start, stop)."""
        return int(self._table["env_steps"][start:stop].sum())

    def trajectory(self, start: int, stop: int) -> Trajectory:
        """Rows [start, stop), copied."""
        spec = self.stream.spec
        frames = np.empty((stop - start, image_bytes(spec)), np.uint8)
        if spec.images:
            self.stream.frames.copy(start, frames)
        observation = {name: np.ascontiguousarray(image) for name, image in split_images(spec, frames).items()}
        observation |= {name: self._table[VECTOR + name][start:stop].copy() for name in spec.vectors}
        fields = {key: self._table[key][start:stop].copy() for key in ("action", "reward", "env_steps")}
        if not self._table["is_first"][start]:
            for values in fields.values():
                values[0] = 0
        return Trajectory(
            observation=observation,
            terminal=bool(self._table["is_terminal"][stop - 1]),
            name=f"{self._path} rows {start} to {stop - 1}",
            **fields,
        )
