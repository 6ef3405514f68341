"""Where the frames of numbered rows are: in a ring of memory, or mapped from the segment files that hold them.

A mapped file is brought in as a whole, in the largest pages there are: a window of frames is hundreds of small pages,
and looking each of them up costs as much as copying them. No descriptor stays open, so there may be thousands of maps.
"""

import ctypes
import os
import sys
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.uint8]  # [n, bytes of a frame]


def _copy(source: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Bytes, in a vector loop.

    The C library's copy, which np.copyto calls, takes two to four times as long on AMD Zen 4 where the low bits of both
    addresses are unlucky (glibc bug 30994).
    """
    np.positive(source, out=out)


class Frames(ABC):
    """The newest frames of one stream by row number; capacity: rows that `put` keeps.

    Where they are in memory, what becomes of the files that hold them as well is of no interest.
    """

    capacity: int

    @abstractmethod
    def put(self, row: int, frame: NDArray[np.uint8]) -> None:
        """Keep the bytes of the newest row, in place of the row `capacity` before it."""

    @abstractmethod
    def read(self, path: Path) -> bytes:
        """A segment file whose blocks are about to be taken in; raises OSError."""

    @abstractmethod
    def load(self, row: int, frames: Rows) -> None:
        """Take in rows [row, row + n), read from a block that is about to be `located`."""

    @abstractmethod
    def copy(self, row: int, out: Rows) -> None:
        """Write the frames of rows [row, row + n) to `out` (C-contiguous)."""

    def located(self, row: int, path: Path, offset: int) -> None:
        """The frames of a block that begins with row number `row` begin at byte `offset` of `path`."""
        return

    def settle(self) -> None:
        """Every block there is was located: let go of files that hold none, whose names may come again."""
        return

    def forget_before(self, row: int) -> None:
        """Let go of the rows below `row`."""
        return

    def clear(self) -> None:
        """Let go of every row."""
        return


class MemoryFrames(Frames):
    """A ring in memory, whose rows are overwritten when their numbers come again."""

    def __init__(self, ring: Rows) -> None:
        self._ring, self.capacity = ring, len(ring)

    def put(self, row: int, frame: NDArray[np.uint8]) -> None:
        self._ring[row % self.capacity] = frame.reshape(-1)

    def read(self, path: Path) -> bytes:
        """Nobody reads the file again: its place is needed for the ring."""
        content = path.read_bytes()
        drop_cached(path)
        return content

    def load(self, row: int, frames: Rows) -> None:
        """Copy them; of more than `capacity` rows, the newest."""
        newest = frames[-self.capacity :]
        self._ring[(np.arange(len(newest)) + row + len(frames) - len(newest)) % self.capacity] = newest

    def copy(self, row: int, out: Rows) -> None:
        """At most two pieces, before and after the ring's seam."""
        slot = row % self.capacity
        head = min(len(out), self.capacity - slot)
        _copy(self._ring[slot : slot + head], out[:head])
        if head < len(out):
            _copy(self._ring[: len(out) - head], out[head:])


class MappedFrames(Frames):
    """Frames read where the blocks of a log lie; a ring of `capacity` rows holds those that may not be durable yet.

    resident: all files together stay in the system's cache, and are brought there when they are complete.
    A file that is mapped must never be cut below its intact blocks: reading there would end the process.
    """

    def __init__(self, *, frame_bytes: int, capacity: int, resident: bool = False) -> None:
        self.capacity, self._bytes, self._resident = capacity, frame_bytes, resident
        self._tail = MemoryFrames(np.empty((capacity, frame_bytes), np.uint8))
        self.clear()

    def clear(self) -> None:
        """Unmap every file."""
        self._tail_first = self._tail_stop = 0
        # one entry a block, in the order of rows: files are mapped when they are read
        self._firsts: list[int] = []
        self._places: list[tuple[Path, int]] = []
        self._maps: dict[Path, NDArray[np.uint8]] = {}

    def put(self, row: int, frame: NDArray[np.uint8]) -> None:
        """Keep a frame that is in no block yet."""
        self._tail.put(row, frame)
        if not self._tail_first <= row <= self._tail_stop:
            self._tail_first = row
        self._tail_stop = row + 1
        self._tail_first = max(self._tail_first, self._tail_stop - self.capacity)

    def read(self, path: Path) -> bytes:
        """Through the cache that serves the frames later."""
        self._complete(path)
        return path.read_bytes()

    def _complete(self, path: Path) -> None:
        if self._resident:
            self._maps[path] = map_file(path, resident=True)

    def load(self, row: int, frames: Rows) -> None:
        """They stay where they are."""

    def located(self, row: int, path: Path, offset: int) -> None:
        """Remember where a block is; it takes the place of blocks of the same rows that were taken back."""
        while self._firsts and self._firsts[-1] >= row:
            self._firsts.pop()
            self._places.pop()
        if self._places and self._places[-1][0] not in (path, *self._maps):
            # the rows are safe already; what fails now is mapped when it is read
            with suppress(OSError):
                self._complete(self._places[-1][0])
        self._firsts.append(row)
        self._places.append((path, offset))

    def copy(self, row: int, out: Rows) -> None:
        """A piece for each block and for the ring's seam."""
        stop = row + len(out)
        in_files = min(max(self._tail_first - row, 0), len(out)) if self._tail_stop >= stop else len(out)
        if in_files:
            self._copy_files(row, out[:in_files])
        if in_files < len(out):
            self._tail.copy(row + in_files, out[in_files:])

    def hold(self, maps: Mapping[Path, NDArray[np.uint8]]) -> None:
        """Serve these files as they were when they were mapped."""
        self._maps.update(maps)

    def _copy_files(self, row: int, out: Rows) -> None:
        stop, flat = row + len(out), out.reshape(-1)
        i = bisect_right(self._firsts, row) - 1
        position = row
        while position < stop:
            block_stop = self._firsts[i + 1] if i + 1 < len(self._firsts) else stop
            count = min(block_stop, stop) - position
            path, offset = self._places[i]
            begin = offset + (position - self._firsts[i]) * self._bytes
            to = (position - row) * self._bytes
            _copy(self._mapped(path, begin, count * self._bytes), flat[to : to + count * self._bytes])
            position, i = position + count, i + 1

    def _mapped(self, path: Path, begin: int, size: int) -> NDArray[np.uint8]:
        """Bytes [begin, begin + size) of a file, which may have grown since it was mapped."""
        whole = self._maps.get(path)
        if whole is None or len(whole) < begin + size:
            whole = self._maps[path] = map_file(path)
        piece = whole[begin : begin + size]
        assert len(piece) == size, (path, begin, size, len(whole))
        return piece

    def settle(self) -> None:
        """Unmap what no block lies in: a torn segment is set aside, and the next one takes its name."""
        in_use = {path for path, _ in self._places}
        self._maps = {path: whole for path, whole in self._maps.items() if path in in_use}

    def forget_before(self, row: int) -> None:
        """Forget whole blocks, and unmap the files that none is left of."""
        drop = bisect_right(self._firsts, row) - 1
        if drop <= 0:
            return
        gone = {path for path, _ in self._places[:drop]} - {path for path, _ in self._places[drop : drop + 1]}
        del self._firsts[:drop], self._places[:drop]
        for path in gone:
            self._maps.pop(path, None)


def map_file(path: Path, *, resident: bool = False) -> NDArray[np.uint8]:
    """All bytes of a file, read-only [bytes]; raises OSError. Reading where it has been cut since ends the process.

    resident: bring it into memory at once, which is for files that will stay there.
    """
    if resident:
        # what is cached already is cached in small pages
        drop_cached(path)
    with path.open("rb") as file:
        whole = _map(file)
    if resident:
        populate(whole)
    return whole


def _map(file: BinaryIO) -> NDArray[np.uint8]:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return np.empty(0, np.uint8)
    try:
        # Python's own mmap would keep a descriptor for each file
        mapped = torch.from_file(f"/proc/self/fd/{file.fileno()}", shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise OSError(f"{file.name}: {size} bytes cannot be mapped: {error}") from error
    whole: NDArray[np.uint8] = mapped.numpy()
    whole.flags.writeable = False
    return whole


class FileSnapshot:
    """A file's bytes as they were when it was held, though it is replaced, removed or appended to; raises OSError.

    resident: bring it into memory at once.
    """

    def __init__(self, path: Path, *, resident: bool = False) -> None:
        self.path = path
        with path.open("rb") as file:
            self._inode, self.whole = os.fstat(file.fileno()).st_ino, _map(file)
        if resident:
            populate(self.whole)

    def read(self) -> bytes:
        """The bytes, from the file where it still has its name: a disk's error is an OSError then, no signal."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == self._inode:
                    return file.read(len(self.whole))
        except FileNotFoundError:
            pass
        return self.whole.tobytes()


LINUX = sys.platform == "linux"
# linux/mman.h
_HUGEPAGE, _POPULATE_READ = 14, 22


def drop_cached(path: Path) -> None:
    """Let go of what is cached of a file and on disk as well; raises OSError."""
    if LINUX:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def populate(whole: NDArray[np.uint8]) -> None:
    """Read a mapped file now; what cannot be read, or a system that knows no such advice, shows where it is touched."""
    if LINUX and len(whole):
        libc = ctypes.CDLL(None)
        for advice in (_HUGEPAGE, _POPULATE_READ):
            libc.madvise(ctypes.c_void_p(whole.ctypes.data), ctypes.c_size_t(len(whole)), advice)
