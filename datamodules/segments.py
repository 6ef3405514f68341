"""The on-disk log of one replay stream: append-only segment files of checksummed blocks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.blocks import HEADER_BYTES, Block, Found, encode_header, intact_blocks, is_torn
from datamodules.durable import sync_folder, write_all

# what a log's reader is called with: a block, the file it is in, and the byte where its payload begins
Visit = Callable[[Block, Path, int], None]


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    next_row: int
    end: int
    crc: int


@dataclass(slots=True)
class _Segment:
    path: Path
    entries: list[_Entry]

    @property
    def size(self) -> int:
        return self.entries[-1].end if self.entries else 0


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

    def recover(self, visit: Visit) -> None:
        """Hand every intact block to `visit`, oldest first, and cut what cannot be read from the end."""
        self.close()
        self._segments, self.damaged_blocks = [], 0
        self.blocks = self.rows = 0
        tail = memoryview(b"")
        for path in sorted(self.folder.glob("segment_*.bin")):
            tail = self._recover_segment(path, visit)
        # inside the log damage shows as a gap in the numbers; at its end only the bytes can tell
        if len(tail) > 0 and not is_torn(tail):
            self.damaged_blocks += 1
            self.blocks += 1
        self._open_last()

    def _recover_segment(self, path: Path, visit: Visit) -> memoryview:
        """Take in one file; returns the bytes after its last intact block."""
        content = path.read_bytes()
        if not self._segments:
            self.blocks = int(path.stem.removeprefix("segment_"))
        segment = _Segment(path, [])
        for found in intact_blocks(content):
            block = found.block
            if block.number < self.blocks or block.first_row < self.rows:
                continue
            self.damaged_blocks += block.number - self.blocks
            self._enter(segment, found)
            visit(block, path, found.begin)
        if segment.entries:
            self._segments.append(segment)
        elif content:
            # the next segment may need this name; what cannot be read is still somebody's data
            path.rename(path.with_suffix(".damaged"))
        else:
            path.unlink()
        return memoryview(content)[segment.size :]

    def _enter(self, segment: _Segment, found: Found) -> None:
        block = found.block
        segment.entries.append(_Entry(block.number, block.next_row, found.end, found.crc))
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

    def append(self, block: Block, parts: Sequence[memoryview] = ()) -> tuple[Path, int]:
        """Write `block` with the payload `parts` (C-contiguous bytes); all or nothing, durable after `sync`.

        Returns the file and the byte where the payload begins.
        """
        assert block.number == self.blocks and block.first_row >= self.rows, (block, self.blocks, self.rows)
        if self._dirty:
            self._cut()
        if self._fd is None or self._segments[-1].size >= self._segment_bytes:
            self._start_segment()
        assert self._fd is not None
        header, size, crc = encode_header(block, parts)
        # until the block is whole, the end of the file is not to be trusted
        self._dirty = True
        write_all(self._fd, header)
        for part in parts:
            write_all(self._fd, part)
        self._dirty = False
        segment = self._segments[-1]
        begin = segment.size + HEADER_BYTES
        self._enter(segment, Found(block, begin, begin + size, crc))
        return segment.path, begin

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
