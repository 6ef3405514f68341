"""The on-disk log of one replay stream: append-only segment files of checksummed blocks, and their manifest."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.storage.durable import sync, write_all, write_atomic
from datamodules.storage.log_format import (
    HEADER_BYTES,
    Block,
    LogCounters,
    Manifest,
    StoredBlock,
    encode_header,
    write_manifest,
)
from datamodules.storage.log_reader import LogReader, Read, Segment, later

# what a log's reader is called with: a block, the file it is in, and the byte where its payload begins
Visit = Callable[[Block, Path, int], None]


class SegmentLog:
    """Appends blocks durably, finds the intact ones again after any crash, and rolls back to an earlier block.

    blocks, rows: numbers of the next block and of the next row. damaged_blocks, lost_rows: found missing, a manifest
    that had to be made anew counting as a block. header: kept with the manifest, as a copy of the folder's.
    manifest_expected: the folder is of a format that has manifests. Every method raises OSError when the file system
    does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        header: Mapping[str, Any] | None = None,
        manifest_expected: bool = True,
    ) -> None:
        self.folder = folder
        self._segment_bytes, self._header, self._manifest_expected = segment_bytes, header or {}, manifest_expected
        self._counters, self._broken_manifests = LogCounters(), 0
        self._first = (0, 0)
        self._segments: list[Segment] = []
        self._fd: int | None = None
        self._synced = (0, 0, 0)
        self._committed: Manifest | None = None
        self._mend: Callable[[], None] | None = None  # before the file takes another block
        self._keep_from = 0
        self._dropped: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def blocks(self) -> int:
        """Number of the next block."""
        return self._counters.blocks

    @property
    def rows(self) -> int:
        """Number of the next row."""
        return self._counters.rows

    @property
    def damaged_blocks(self) -> int:
        """Blocks found missing, and manifests made anew."""
        return self._counters.damaged_blocks + self._broken_manifests

    @property
    def lost_rows(self) -> int:
        """Rows found missing."""
        return self._counters.lost_rows

    @property
    def first_row(self) -> int:
        """Number of the oldest row that is kept, or should be."""
        return self._first[1]

    @property
    def synced_rows(self) -> int:
        """Rows below this number survive a power loss."""
        return self._synced[2]

    @property
    def last_crc(self) -> int:
        """CRC of the newest block's header, 0 for an empty log."""
        return next((segment.entries[-1].crc for segment in reversed(self._segments) if segment.entries), 0)

    def recover(self, visit: Visit, read: Read = Path.read_bytes) -> None:
        """Hand every intact block to `visit`, oldest first; set aside what cannot be read, and count it.

        read: returns the bytes of a segment.
        """
        self.close()
        reader = LogReader(self.folder, manifest_expected=self._manifest_expected, take=partial(later, read=read))
        segments = reader.read(lambda stored, path: visit(stored.block, path, stored.begin))
        self._counters, self._first = reader.counters, reader.first
        self._broken_manifests += reader.broken_manifests
        self._segments = move_damaged(self.folder, segments, torn=reader.torn)
        self._dropped = []
        self._committed = reader.manifest if reader.broken_manifests == 0 else None
        self._open_last()
        self._commit()

    def _open_last(self) -> None:
        """Reopen the newest segment for appending, cut after its last intact block."""
        self._mend = None
        if self._segments:
            self._fd = os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND)
            os.ftruncate(self._fd, self._segments[-1].size)
            os.fsync(self._fd)
        sync(self.folder)
        self._mark_synced()

    def _mark_synced(self) -> None:
        entries = len(self._segments[-1].entries) if self._segments else 0
        self._synced = (entries, self.blocks, self.rows)

    def append(self, block: Block, parts: Sequence[memoryview] = ()) -> tuple[Path, int]:
        """Write `block` with the payload `parts` (C-contiguous bytes); all or nothing, durable after `sync`.

        Returns the file and the byte where the payload begins.
        """
        assert block.number == self.blocks and block.first_row >= self.rows, (block, self.blocks, self.rows)
        if self._mend is not None:
            self._mend()
        if self._fd is None or self._segments[-1].size >= self._segment_bytes:
            self._start_segment()
        assert self._fd is not None
        header, size, crc = encode_header(block, parts)
        # until the block is whole, the end of the file is not to be trusted
        self._mend = self._cut
        write_all(self._fd, header)
        for part in parts:
            write_all(self._fd, part)
        self._mend = None
        segment = self._segments[-1]
        begin = segment.size + HEADER_BYTES
        segment.enter(StoredBlock(block, begin, begin + size, crc))
        self._counters.blocks, self._counters.rows = block.number + 1, block.next_row
        return segment.path, begin

    def _start_segment(self) -> None:
        self._drop_oldest()
        self.sync()
        # an older attempt may have left this name behind, empty
        path = self.folder / f"segment_{self.blocks:012d}.bin"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            sync(self.folder)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        self._segments.append(Segment(path))
        self._mark_synced()
        while self._dropped:
            self._dropped[0].unlink(missing_ok=True)
            del self._dropped[0]

    def _drop_oldest(self) -> None:
        """Leave the oldest segments out of the manifest that the next sync commits; the files go after it."""
        while len(self._segments) > 1 and self._segments[0].entries[-1].next_row <= self._keep_from:
            self._dropped.append(self._segments.pop(0).path)
            oldest = self._segments[0].entries[0]
            self._first = (oldest.number, oldest.first_row)

    def _cut(self) -> None:
        """Remove what a failed write left behind the last whole block."""
        assert self._fd is not None
        os.ftruncate(self._fd, self._segments[-1].size)
        self._mend = None

    def _replace(self) -> None:
        """A new file without the blocks that were taken back: another process may have the old one mapped."""
        segment = self._segments[-1]
        write_atomic(segment.path, segment.path.read_bytes()[: segment.size])
        self.close()
        self._fd = os.open(segment.path, os.O_WRONLY | os.O_APPEND)
        self._mend = None

    def sync(self) -> None:
        """Make every appended block durable; on failure the blocks since the last sync count as not appended."""
        if self._fd is None:
            return
        try:
            os.fsync(self._fd)
            self._commit()
        except OSError:
            # after a failed fsync the kernel may have dropped the pages: only writing them again is safe
            entries, self._counters.blocks, self._counters.rows = self._synced
            del self._segments[-1].entries[entries:]
            self._mend, self._committed = self._replace, None
            raise
        self._mark_synced()

    def _commit(self) -> None:
        """Say in the manifest that every block is durable."""
        self._commit_up_to(self.blocks, self.rows, self.last_crc)

    def _commit_up_to(self, blocks: int, rows: int, crc: int) -> None:
        current = Manifest(*self._first, blocks, rows, crc)
        if current != self._committed:
            write_manifest(self.folder, current, header=self._header)
            self._committed = current

    def rolls_back_to(self, blocks: int, crc: int) -> bool:
        """Whether the block before number `blocks` is the one with this CRC (or is missing, so none can tell)."""
        stored = [e.crc for s in self._segments for e in s.entries if e.number == blocks - 1]
        return not stored or stored[0] == crc

    def rollback(self, blocks: int) -> None:
        """Drop every block numbered `blocks` or higher, newest segment first; call `recover` afterwards."""
        self.close()
        while self._segments and not any(entry.number < blocks for entry in self._segments[-1].entries):
            segment = self._segments.pop()
            # before the file goes: a manifest that names what is missing would be a false alarm
            if segment.entries:
                oldest = segment.entries[0]
                self._commit_up_to(oldest.number, oldest.first_row, self.last_crc)
            segment.path.unlink()
            sync(self.folder)
        if self._segments:
            segment = self._segments[-1]
            segment.entries = [entry for entry in segment.entries if entry.number < blocks]
            newest = segment.entries[-1]
            self._commit_up_to(newest.number + 1, newest.next_row, newest.crc)
            self._replace()

    def skip_to(self, *, blocks: int, rows: int) -> None:
        """Continue at these numbers after losing the end of the log; the blocks between count as damaged."""
        self._counters.skip_to(blocks=blocks, rows=rows)
        self._commit()
        self._mark_synced()

    def drop_before(self, row: int) -> None:
        """Let the oldest segments go that hold no row numbered `row` or higher, when the next segment begins."""
        self._keep_from = row

    def close(self) -> None:
        """Release the file; blocks since the last `sync` stay in the hands of the operating system."""
        if self._fd is not None:
            # a number that was closed, though with an error, may be another file's by now
            fd, self._fd = self._fd, None
            os.close(fd)


DAMAGED_FOLDER = "damaged"


def move_damaged(folder: Path, segments: Sequence[Segment], *, torn: bool) -> list[Segment]:
    """Move unreadable segments of a log, and copy unreadable parts of others; returns the segments that stay.

    torn: the bytes after the newest segment's last block are an unfinished write. Empty files are removed. Safe to
    repeat after a crash. Raises OSError.
    """
    readable = []
    for segment in segments:
        unfinished = torn and segment is segments[-1]
        rubble = segment.rubble[:-1] if unfinished else segment.rubble
        if segment.entries:
            readable.append(segment)
            for begin, end in rubble:
                _copy(folder, segment.path, begin, end)
        elif rubble:
            segment.path.replace(_place(folder, segment.path.name))
        else:
            segment.path.unlink()
    return readable


def _copy(folder: Path, path: Path, begin: int, end: int) -> None:
    target = _place(folder, f"{path.stem}_{begin:012d}.bin")
    with path.open("rb") as file:
        file.seek(begin)
        content = file.read(end - begin)
    if not target.exists() or target.read_bytes() != content:
        write_atomic(target, content)


def _place(folder: Path, name: str) -> Path:
    aside = folder / DAMAGED_FOLDER
    if not aside.exists():
        aside.mkdir()
        sync(folder)
    return aside / name
