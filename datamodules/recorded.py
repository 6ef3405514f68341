"""Segment folders opened for reading: verified once, frames left on disk and mapped, other processes undisturbed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.samplers.uniform import Uniform
from datamodules.storage.budget import DAMAGE_LIMIT, check_lost_rows, folder_bytes, stays_cached
from datamodules.storage.durable import synchronized
from datamodules.storage.folder import HEADER, read_header, require_same_counts
from datamodules.storage.recorded_stream import LogSnapshot, RecordedStream
from datamodules.storage.rows import ReplayMismatch, empty_table, row_bytes
from datamodules.storage.shards import current_shards
from datamodules.storage.stream import StreamTable
from datamodules.trajectory import Trajectory
from datamodules.window_source import WindowSource
from datamodules.windows import Content, Sampler, require_same_sampler
from worldmodel.spec import INTERFACE, EnvSpec


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
        self.spec = _one_spec(self.folders, [header.spec for header, _ in headers])
        resident = stays_cached(sum(map(folder_bytes, self.folders)))
        logs = [
            LogSnapshot(path, manifest_expected=header.format > 1, resident=resident)
            for rank, (header, _) in zip(self.folders, headers, strict=True)
            for path in sorted(rank.glob("stream_*"))
        ]
        if not logs:
            raise ReplayMismatch(f"{self.folders[0]}: expected folders stream_*, got none")
        # every row takes its bytes on disk, which bounds the rows before they are read
        rings = [log.bytes // row_bytes(self.spec) + 1 for log in logs]
        table = empty_table(self.spec, sum(rings))
        self._readers, base = list[RecordedStream](), 0
        for log, ring in zip(logs, rings, strict=True):
            slots = {key: values[base : base + ring] for key, values in table.items()}
            self._readers.append(RecordedStream(self.spec, slots, log))
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
        self.terminates = any(bool(readers[i].table["is_terminal"][stop - 1]) for i, _, stop in self._spans)
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
        require_same_counts(state, {"rows": self.rows, "episodes": self.episodes})
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
    ranks = sorted(path for path in current_shards(folder).glob("rank_*") if path.is_dir())
    if not ranks:
        raise ReplayMismatch(f"{folder}: expected {HEADER} or rank_*/{HEADER}, got neither")
    return ranks


def _one_spec(folders: Sequence[Path], specs: Sequence[EnvSpec]) -> EnvSpec:
    for folder, spec in zip(folders, specs, strict=True):
        for fact, expected, got in specs[0].differences(spec, INTERFACE):
            raise ReplayMismatch(f"{folder}: expected {fact} {expected} as in {folders[0]}, got {got}")
    return specs[0]
