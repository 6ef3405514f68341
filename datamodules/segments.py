"""The on-disk log of one replay stream: append-only segment files of checksummed blocks.

A block is a header and a payload, each with a CRC-32. Blocks are numbered without gaps, so that a gap found while
reading is damage and can be counted. Nothing here knows what a row holds.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from datamodules.durable import sync_folder, write_all

MAGIC = b"RPLB"
VERSION = 1
_FIELDS = struct.Struct("<4sHHQQIIQQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size


class Kind(IntEnum):
    """What a block says: new rows, "the row before was the episode's last", or "the newest rows are dropped"."""

    ROWS = 0
    CLOSE = 1
    DROP = 2


@dataclass(frozen=True, slots=True)
class Block:
    """One record of the log.

    first_row: number of its first row (CLOSE, DROP: of the next row). rows: rows added (DROP: rows dropped).
    env_steps, episodes: the stream's totals once the block is applied.
    """

    kind: Kind
    number: int
    first_row: int
    rows: int
    env_steps: int
    episodes: int
    payload: bytes | memoryview = b""

    @property
    def next_row(self) -> int:
        """The number of the row that follows."""
        return self.first_row + (self.rows if self.kind is Kind.ROWS else 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    next_row: int
    end: int
    crc: int  # of the header, which holds the payload's: tells one history of the stream from another


@dataclass(slots=True)
class _Segment:
    path: Path
    entries: list[_Entry]

    @property
    def size(self) -> int:
        return self.entries[-1].end if self.entries else 0


def _encode_header(block: Block, payload_bytes: int, payload_crc: int) -> bytes:
    counters = (block.number, block.first_row, block.rows, payload_bytes, block.env_steps, block.episodes)
    fields = _FIELDS.pack(MAGIC, VERSION, block.kind, *counters, payload_crc)
    return fields + _CRC.pack(zlib.crc32(fields))


def _decode_header(data: memoryview, position: int) -> tuple[Block, int, int] | None:
    """The block (without payload), its payload's size and CRC; None where no intact header starts."""
    fields = data[position : position + _FIELDS.size]
    stored = data[position + _FIELDS.size : position + HEADER_BYTES]
    if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != zlib.crc32(fields):
        return None
    _, version, kind, number, first_row, rows, size, env_steps, episodes, crc = _FIELDS.unpack(fields)
    if version != VERSION or kind not in set(Kind):
        return None
    return Block(Kind(kind), number, first_row, rows, env_steps, episodes), size, crc


def _intact_blocks(content: bytes) -> Iterator[tuple[Block, int, int]]:
    """Every intact block of a segment with its end offset and header CRC; damaged ones are passed over."""
    data, position = memoryview(content), 0
    while (position := content.find(MAGIC, position)) >= 0:
        header = _decode_header(data, position)
        if header is None:
            position += 1
            continue
        block, size, crc = header
        begin, position = position + HEADER_BYTES, position + HEADER_BYTES + size
        payload = data[begin:position]
        if len(payload) == size and zlib.crc32(payload) == crc:
            yield replace(block, payload=payload), position, _CRC.unpack(data[begin - _CRC.size : begin])[0]


def _is_torn(tail: memoryview) -> bool:
    """Whether the bytes after the last intact block are a write that never finished (rather than damage)."""
    header = _decode_header(tail, 0)
    return len(tail) < HEADER_BYTES or (header is not None and len(tail) < HEADER_BYTES + header[1])


class SegmentLog:
    """Appends blocks durably, finds the intact ones again after any crash, and rolls back to an earlier block.

    blocks, rows: numbers of the next block and of the next row. damaged_blocks: blocks found unreadable or missing.
    Every method raises OSError when the file system does.
    """

    def __init__(self, folder: Path, *, segment_bytes: int) -> None:
        self.folder = folder
        self.blocks = self.rows = self.damaged_blocks = 0
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._fd: int | None = None
        self._synced = (0, 0, 0)
        self._dirty = False
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def synced_rows(self) -> int:
        """Rows below this number survive a power loss."""
        return self._synced[2]

    @property
    def last_crc(self) -> int:
        """CRC of the newest block's header, 0 for an empty log."""
        return next((segment.entries[-1].crc for segment in reversed(self._segments) if segment.entries), 0)

    def recover(self, visit: Callable[[Block], None]) -> None:
        """Hand every intact block to `visit`, oldest first, and cut what cannot be read from the end."""
        self.close()
        self._segments, self.damaged_blocks = [], 0
        self.blocks = self.rows = 0
        tail = memoryview(b"")
        for path in sorted(self.folder.glob("segment_*.bin")):
            tail = self._recover_segment(path, visit)
        # inside the log damage shows as a gap in the numbers; at its end only the bytes can tell
        if len(tail) > 0 and not _is_torn(tail):
            self.damaged_blocks += 1
            self.blocks += 1
        self._open_last()

    def _recover_segment(self, path: Path, visit: Callable[[Block], None]) -> memoryview:
        """Take in one file; returns the bytes after its last intact block."""
        content = path.read_bytes()
        if not self._segments:
            self.blocks = int(path.stem.removeprefix("segment_"))
        segment = _Segment(path, [])
        for block, end, crc in _intact_blocks(content):
            if block.number < self.blocks or block.first_row < self.rows:
                continue
            self.damaged_blocks += block.number - self.blocks
            self._enter(segment, block, end, crc)
            visit(block)
        if segment.entries:
            self._segments.append(segment)
        elif content:
            # the next segment may need this name; what cannot be read is still somebody's data
            path.rename(path.with_suffix(".damaged"))
        else:
            path.unlink()
        return memoryview(content)[segment.size :]

    def _enter(self, segment: _Segment, block: Block, end: int, crc: int) -> None:
        segment.entries.append(_Entry(block.number, block.next_row, end, crc))
        self.blocks, self.rows = block.number + 1, block.next_row

    def _open_last(self) -> None:
        """Reopen the newest segment for appending, cut after its last intact block."""
        self._dirty = False
        if self._segments:
            self._fd = os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND)
            os.ftruncate(self._fd, self._segments[-1].size)
            os.fsync(self._fd)
        sync_folder(self.folder)
        self._mark_synced()

    def _mark_synced(self) -> None:
        entries = len(self._segments[-1].entries) if self._segments else 0
        self._synced = (entries, self.blocks, self.rows)

    def append(self, block: Block, parts: Sequence[memoryview] = ()) -> None:
        """Write `block` with the payload `parts` (C-contiguous bytes); all or nothing, durable after `sync`."""
        assert block.number == self.blocks and block.first_row >= self.rows, (block, self.blocks, self.rows)
        if self._dirty:
            self._cut()
        if self._fd is None or self._segments[-1].size >= self._segment_bytes:
            self._start_segment()
        assert self._fd is not None
        payload_crc = 0
        for part in parts:
            payload_crc = zlib.crc32(part, payload_crc)
        size = sum(part.nbytes for part in parts)
        header = _encode_header(block, size, payload_crc)
        # until the block is whole, the end of the file is not to be trusted
        self._dirty = True
        write_all(self._fd, header)
        for part in parts:
            write_all(self._fd, part)
        self._dirty = False
        segment = self._segments[-1]
        self._enter(segment, block, segment.size + HEADER_BYTES + size, zlib.crc32(header[: _FIELDS.size]))

    def _start_segment(self) -> None:
        self.sync()
        # an older attempt may have left this name behind, empty
        path = self.folder / f"segment_{self.blocks:012d}.bin"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            sync_folder(self.folder)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        self._segments.append(_Segment(path, []))
        self._mark_synced()

    def _cut(self) -> None:
        """Remove what a failed write left behind the last whole block."""
        assert self._fd is not None
        os.ftruncate(self._fd, self._segments[-1].size)
        self._dirty = False

    def sync(self) -> None:
        """Make every appended block durable; on failure the blocks since the last sync count as not appended."""
        if self._fd is None:
            return
        try:
            os.fsync(self._fd)
        except OSError:
            # after a failed fsync the kernel may have dropped the pages: only writing them again is safe
            entries, self.blocks, self.rows = self._synced
            del self._segments[-1].entries[entries:]
            self._dirty = True
            raise
        self._mark_synced()

    def rolls_back_to(self, blocks: int, crc: int) -> bool:
        """Whether the block before number `blocks` is the one with this CRC (or is missing, so none can tell)."""
        found = [e.crc for s in self._segments for e in s.entries if e.number == blocks - 1]
        return not found or found[0] == crc

    def rollback(self, blocks: int) -> None:
        """Drop every block numbered `blocks` or higher, newest segment first; call `recover` afterwards."""
        self.close()
        while self._segments and not any(entry.number < blocks for entry in self._segments[-1].entries):
            self._segments.pop().path.unlink()
            sync_folder(self.folder)
        if self._segments:
            kept = [entry for entry in self._segments[-1].entries if entry.number < blocks]
            self._segments[-1].entries = kept
            self._open_last()

    def skip_to(self, *, blocks: int, rows: int) -> None:
        """Continue at these numbers after losing the end of the log; the blocks between count as damaged."""
        self.damaged_blocks += max(0, blocks - self.blocks)
        self.blocks, self.rows = max(self.blocks, blocks), max(self.rows, rows)
        self._mark_synced()

    def drop_before(self, row: int) -> None:
        """Delete the oldest segments that hold no row numbered `row` or higher."""
        while len(self._segments) > 1 and self._segments[0].entries[-1].next_row <= row:
            self._segments[0].path.unlink()
            del self._segments[0]
            sync_folder(self.folder)

    def close(self) -> None:
        """Release the file; blocks since the last `sync` stay in the hands of the operating system."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
