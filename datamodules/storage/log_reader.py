"""Reads the segments of a log, oldest block first, and finds out what is missing; changes nothing."""

import errno
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from datamodules.storage.durable import retry
from datamodules.storage.log_format import (
    HEADER_BYTES,
    ChecksumMismatch,
    LogCounters,
    Manifest,
    StoredBlock,
    intact_blocks,
    is_torn,
    load_manifest,
    parse_manifest,
)

# far above what is ever written: such a file is not this log's
LARGEST_BYTES = 1 << 33
GLANCES = 20  # at a log that another process changes, until nothing changed between two looks

Visit = Callable[[StoredBlock, Path], None]
Source = Callable[[], bytes]  # reads a segment, or raises OSError
Read = Callable[[Path], bytes]  # reads the segment at a path, or raises OSError


@dataclass(frozen=True, slots=True)
class Entry:
    """What a segment's reader remembers of a block."""

    number: int
    first_row: int
    next_row: int
    end: int
    crc: int


@dataclass(slots=True)
class Segment:
    """One file: its intact blocks, and the ranges of bytes between and after them. bytes: of the file as read."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    rubble: list[tuple[int, int]] = field(default_factory=list)
    bytes: int = 0

    @property
    def size(self) -> int:
        """Bytes up to the end of the last block."""
        return self.entries[-1].end if self.entries else 0

    def enter(self, stored: StoredBlock) -> None:
        """Add the next block."""
        block = stored.block
        self.entries.append(Entry(block.number, block.first_row, block.next_row, stored.end, stored.crc))


def segment_paths(folder: Path) -> list[Path]:
    """The segment files of a log, oldest first."""
    return sorted(path for path in folder.glob("segment_*.bin") if path.stem.removeprefix("segment_").isdecimal())


def later(paths: Sequence[Path], *, read: Read = Path.read_bytes) -> dict[Path, Source]:
    """Sources that read files as they are then: for the process that writes them, which nobody disturbs."""
    return {path: partial(retry, partial(read, path)) for path in paths}


def is_regular(path: Path) -> bool:
    """Whether a segment can be this log's: a file of its own, of a possible size; raises FileNotFoundError."""
    stored = path.lstat()
    return stat.S_ISREG(stored.st_mode) and stored.st_size <= LARGEST_BYTES


def number_of(path: Path) -> int:
    """The number of a segment's first block."""
    return int(path.stem.removeprefix("segment_"))


class LogReader:
    """One pass over a log's folder.

    take: makes a source of each segment that is there, all before the first is read. Where another process writes, the
    log is taken as it was at one moment; raises OSError (EBUSY) where it never rests.
    counters: the numbers that come next and what is missing, once `read` is done. first: the number of the oldest
    block and of the oldest row that should be there. broken_manifests: 1 where the manifest is unreadable, missing or
    older than the segments; the log is then judged by its segments alone, which cannot betray a loss at its ends.
    torn: the newest segment ends in a write that was never finished, which is no damage.
    """

    def __init__(
        self, folder: Path, *, manifest_expected: bool, take: Callable[[Sequence[Path]], dict[Path, Source]] = later
    ) -> None:
        self._folder = folder
        manifest_bytes, self._paths, self._sources = self._look(take)
        self.counters, self.segments = LogCounters(), list[Segment]()
        self.broken_manifests, self.torn = 0, False
        self.manifest = self._parse(manifest_bytes, expected=manifest_expected and len(self._paths) > 0)
        self.first = (number_of(self._paths[0]), 0) if self._paths else (0, 0)

    def _look(
        self, take: Callable[[Sequence[Path]], dict[Path, Source]]
    ) -> tuple[bytes | None, list[Path], dict[Path, Source]]:
        """The manifest and the segments of one moment: a segment goes, or comes back, between two manifests."""
        for _ in range(GLANCES):
            before, paths = self._load_manifest(), segment_paths(self._folder)
            try:
                sources = take([path for path in paths if is_regular(path)])
            except FileNotFoundError:  # dropped by the process that writes here
                continue
            if self._load_manifest() == before:
                return before, paths, sources
        raise OSError(errno.EBUSY, f"{self._folder}: the log changes faster than it can be opened")

    def _load_manifest(self) -> bytes | None:
        return retry(lambda: load_manifest(self._folder))

    def _parse(self, data: bytes | None, *, expected: bool) -> Manifest | None:
        if data is None:
            self.broken_manifests += expected
            return None
        try:
            stored = parse_manifest(data)
        except ChecksumMismatch:
            self.broken_manifests += 1
            return None
        if self._paths and stored[0].blocks < number_of(self._paths[-1]):
            # a segment is begun after a manifest that names all blocks before it
            self.broken_manifests += 1
            return None
        return stored[0]

    def read(self, visit: Visit) -> list[Segment]:
        """Hand every intact block to `visit`; returns the segments, oldest first."""
        tail = b""
        for path in self._paths:
            tail = self._read_segment(path, visit)
        self._judge(memoryview(tail))
        return self.segments

    def _read_segment(self, path: Path, visit: Visit) -> bytes:
        """Take in one file; returns the bytes after its last intact block."""
        segment, end = Segment(path), 0
        self.segments.append(segment)
        if path not in self._sources:
            segment.rubble.append((0, 1))
            return b""
        content = self._sources[path]()
        segment.bytes = len(content)
        for stored in intact_blocks(content):
            if not any(earlier.entries for earlier in self.segments):
                self.counters.blocks, self.counters.rows = stored.block.number, stored.block.first_row
            begin = stored.begin - HEADER_BYTES
            segment.rubble += [(end, begin)] if begin > end else []
            end = stored.end
            if self.counters.accepts(stored.block):
                segment.enter(stored)
                visit(stored, path)
        if end < len(content):
            segment.rubble.append((end, len(content)))
        return content[end:]

    def _judge(self, tail: memoryview) -> None:
        """Count what is missing at both ends; inside the log a gap in the numbers was counted already."""
        counters, known = self.counters, self.manifest
        entries = [entry for segment in self.segments for entry in segment.entries]
        if known is not None and any(e.number == known.blocks - 1 and e.crc != known.crc for e in entries):
            known, self.broken_manifests = None, self.broken_manifests + 1  # of another history
        if known is not None and (not entries or known.first_block <= entries[0].number):
            self.first = (known.first_block, known.first_row)
        elif entries:
            self.first = (min(self.first[0], entries[0].number), entries[0].first_row)
        if entries:
            counters.damaged_blocks += entries[0].number - self.first[0]
            counters.lost_rows += entries[0].first_row - self.first[1]
        else:
            counters.blocks, counters.rows = self.first
        if known is not None and known.blocks > counters.blocks:
            counters.skip_to(blocks=known.blocks, rows=known.rows)
        elif len(tail) > 0 and not is_torn(tail):
            counters.skip_to(blocks=counters.blocks + 1, rows=counters.rows)
        else:
            self.torn = len(tail) > 0
