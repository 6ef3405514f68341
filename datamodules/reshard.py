"""The rows of one number of replays dealt out to another: every rank builds its own shard from the files of all.

The files of before are only read, and a rank writes into its own folder alone. So ranks need not wait for each other,
and wherever one is killed the files of before are as they were.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from datamodules.storage.budget import ReplayTooLarge, check_lost_rows, segment_bytes
from datamodules.storage.folder import ReplayFolder, read_header, require_same_spec
from datamodules.storage.log_format import Block, Kind
from datamodules.storage.recorded_stream import LogSnapshot, RecordedStream
from datamodules.storage.rows import empty_table, encode, row_bytes
from datamodules.storage.segments import SegmentLog
from worldmodel.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [start, stop) of an episode in recorded stream `stream`.

    Args:
        stream, start, stop: which rows.
        age: rows that came after them there.
        opens: whether the first of them begins the episode.
    """

    stream: int
    start: int
    stop: int
    age: int
    opens: bool = True

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Resharded:
    """What became of the rows.

    Args:
        rows: stored now, over all shards.
        outdated: the oldest ones, for which the new capacity has no room.
        lost: that could not be read.
        longest: rows of the longest piece of an episode, in the shard where that is least.
    """

    rows: int
    outdated: int
    lost: int
    longest: int

    def __str__(self) -> str:
        parts = [f"{self.rows} rows", f"{self.outdated} of the oldest left out" if self.outdated else ""]
        return ", ".join(filter(None, [*parts, f"{self.lost} lost in damaged blocks" if self.lost else ""]))


def deal(pieces: Sequence[Piece], rings: Sequence[int]) -> list[list[Piece]]:
    """Pieces for streams that keep `rings` rows each, equal shares of rows, the oldest first in every stream.

    An episode is cut only where no stream has room for the whole of it. What finds no room is the oldest. Before a
    piece that does not open an episode there is room for a row that keeps it apart from the piece before it.
    """
    room, dealt = list(rings), [list[Piece]() for _ in rings]
    for piece in sorted(pieces, key=lambda piece: piece.age):
        start, stop = piece.start, piece.stop
        while stop > start and max(room) > 0:
            i = room.index(max(room))
            cut = max(start, stop - room[i])
            part = Piece(piece.stream, cut, stop, piece.age + piece.stop - stop, piece.opens and cut == start)
            dealt[i].append(part)
            room[i] = max(0, room[i] - len(part) - (not part.opens))
            stop = cut
    return [pieces_of[::-1] for pieces_of in dealt]


class OldShards:
    """The rows that a checkpoint counts in the shards of its ranks.

    Args:
        folders: of the shards.
        states: of their replays in the checkpoint.
        spec: of the rows.
        damage_limit: share of rows that may be lost.

    Raises:
        ReplayMismatch: a folder holds other rows.
        ReplayDamaged: too many cannot be read.
    """

    def __init__(
        self, folders: Sequence[Path], states: Sequence[Mapping[str, Any]], *, spec: EnvSpec, damage_limit: float
    ) -> None:
        self._streams, self.pieces = list[RecordedStream](), list[Piece]()
        for folder, state in zip(folders, states, strict=True):
            header, _ = read_header(folder)
            require_same_spec(header.spec, spec)
            ring = state["capacity"] // len(state["streams"])
            for i, stream_state in enumerate(state["streams"]):
                log = LogSnapshot(folder / f"stream_{i:02d}", manifest_expected=header.format > 1, resident=False)
                table = empty_table(spec, log.bytes // row_bytes(spec) + 1)
                self._add(RecordedStream(spec, table, log, stream_state), oldest=stream_state["rows"] - ring)
        stored = [stream for state in states for stream in state["streams"]]
        self.env_steps, self.episodes = (sum(stream[key] for stream in stored) for key in ("env_steps", "episodes"))
        self.episodes += sum(stream["is_open"] for stream in stored)  # which are closed here
        self.rows = sum(map(len, self.pieces))
        self.lost_rows = sum(stream.lost_rows for stream in self._streams)
        damaged_blocks = sum(stream.damaged_blocks for stream in self._streams)
        check_lost_rows(
            folders, lost=self.lost_rows, stored=self.rows + self.lost_rows, blocks=damaged_blocks, limit=damage_limit
        )

    def _add(self, stream: RecordedStream, *, oldest: int) -> None:
        number, begin, written = len(self._streams), stream.position(oldest), stream.stream.written
        self._streams.append(stream)
        for start, stop in stream.stream.live().tolist():
            if stop > begin:
                start = max(start, begin)
                opens = bool(stream.table["is_first"][start])
                self.pieces.append(Piece(number, start, stop, age=written - stop, opens=opens))

    def env_steps_of(self, piece: Piece) -> int:
        """Control steps of a piece."""
        return self._streams[piece.stream].env_steps(piece.start, piece.stop)

    def columns(self, piece: Piece) -> dict[str, NDArray[Any]]:
        """The rows of a piece, whose last one ends it."""
        columns = self._streams[piece.stream].columns(piece.start, piece.stop)
        columns["is_last"][-1] = True
        return columns


def reshard(
    old: OldShards,
    folder: Path,
    *,
    spec: EnvSpec,
    shard: int,
    shards: int,
    streams: int,
    capacity: int,
    flush_rows: int,
) -> Resharded:
    """Write shard number `shard` of `shards`, durable on return; what an earlier attempt left there is removed.

    Args:
        old: the rows, of `spec`.
        folder: of the new shard.
        streams, capacity: of each shard, in rows.
        flush_rows: rows of a block.

    Raises:
        ReplayTooLarge: the disk has no room for a second copy.
        OSError: from the disk.
    """
    ring = capacity // streams
    dealt = deal(old.pieces, [ring] * (shards * streams))
    mine = dealt[shard * streams : (shard + 1) * streams]
    shutil.rmtree(folder, ignore_errors=True)
    _require_disk(sum(len(piece) for pieces in mine for piece in pieces) * row_bytes(spec), folder)
    files = ReplayFolder(folder, spec, streams=streams, capacity=capacity)
    try:
        for i, pieces in enumerate(mine):
            # what left the old rings is counted somewhere
            totals = _missing(old, dealt) if (shard, i) == (0, 0) else (0, 0)
            log = files.log(i, segment_bytes=segment_bytes(spec, ring))
            log.recover(lambda *_: None)
            for piece in pieces:
                totals = _append(log, old.columns(piece), totals, flush_rows=flush_rows)
            log.sync()
    finally:
        files.close()
    rows = sum(len(piece) for pieces in dealt for piece in pieces)
    longest = [
        max((len(piece) for pieces in dealt[first : first + streams] for piece in pieces), default=0)
        for first in range(0, len(dealt), streams)
    ]
    return Resharded(rows, old.rows - rows, old.lost_rows, min(longest))


def _append(
    log: SegmentLog, columns: Mapping[str, NDArray[Any]], totals: tuple[int, int], *, flush_rows: int
) -> tuple[int, int]:
    """Add an episode, or a piece of one; returns the stream's env_steps and episodes so far."""
    (env_steps, episodes), rows = totals, len(columns["reward"])
    if log.rows and not columns["is_first"][0]:
        # rows whose numbers follow each other are taken for rows that followed each other
        parts = encode(values[:1] for values in columns.values())
        log.append(Block(Kind.ROWS, log.blocks, log.rows, 1, env_steps, episodes), parts)
        log.append(Block(Kind.DROP, log.blocks, log.rows, 1, env_steps, episodes))
    for start in range(0, rows, flush_rows):
        stop = min(start + flush_rows, rows)
        env_steps += int(columns["env_steps"][start:stop].sum())
        episodes += stop == rows
        parts = encode(values[start:stop] for values in columns.values())
        log.append(Block(Kind.ROWS, log.blocks, log.rows, stop - start, env_steps, episodes), parts)
    return env_steps, episodes


def _missing(old: OldShards, dealt: Sequence[Sequence[Piece]]) -> tuple[int, int]:
    """env_steps and episodes that the old shards counted and that no row here stands for."""
    pieces = [piece for pieces in dealt for piece in pieces]
    return old.env_steps - sum(map(old.env_steps_of, pieces)), max(0, old.episodes - len(pieces))


def _require_disk(needed: int, folder: Path) -> None:
    existing = next(path for path in folder.absolute().parents if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ReplayTooLarge(
            f"resume: expected {needed} free bytes at {existing} for a copy of this rank's rows, got {free}"
        )
