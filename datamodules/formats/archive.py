"""Reads npz files without trusting them: directory and headers are checked as numbers before any array is made.

The layout of a zip archive is that of PKWARE's APPNOTE 6.3, that of an npy header numpy.lib.format's. Headers are
matched, never evaluated, and nothing is unpickled.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import LIMITS, Limits, read_inside, refuse_above, require_array, require_unpacked
from datamodules.formats.protocol import FormatError, HostileFile

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_HEADER_LIMIT = 10_000
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z?]\d*)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,20}L?, ?)*(?:\d{1,20}L?)?)\),? ?\} *\n?"
)
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an archive before it is read; shape and dtype are its header's."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    method: int
    crc: int
    unpacked: int
    skip: int  # bytes of the npy header
    packed: memoryview


class Archive:
    """The arrays of one npz file, checked when opened and unpacked one by one; raises HostileFile, FormatError."""

    def __init__(self, root: Path, path: Path, *, limits: Limits = LIMITS) -> None:
        self.name = str(path)
        content = memoryview(read_inside(root, path, limit=limits.episode_bytes))
        try:
            entries = _entries(self.name, content, limits)
            self.members = {key: _member(f"{self.name} {key}", content, entry, limits) for key, entry in entries}
        except (struct.error, zlib.error) as error:
            raise FormatError(f"{self.name}: expected an npz file, got a damaged one: {error}") from error

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def read(self, key: str) -> NDArray:
        """The array `key`, which may be a view of what was read; raises FormatError where it is missing or damaged."""
        if key not in self.members:
            raise FormatError(f"{self.name}: expected key {key!r}, got {', '.join(self.members)}")
        member = self.members[key]
        if member.dtype.kind in "SU":
            raise FormatError(f"{self.name} {key}: expected numbers, got {member.dtype}")
        content = self._unpack(key, member)
        flat = np.frombuffer(content, member.dtype, offset=member.skip)
        return flat.reshape(member.shape[::-1]).T if member.fortran else flat.reshape(member.shape)

    def _unpack(self, key: str, member: Member) -> bytes | memoryview:
        content: bytes | memoryview = member.packed
        if member.method == _DEFLATED:
            # one byte more than declared, so that a stream that goes on is noticed and goes no further
            content = _inflate(self.name, key, member.packed, member.unpacked + 1)
        if len(content) != member.unpacked or zlib.crc32(content) != member.crc:
            raise FormatError(
                f"{self.name} {key}: expected {member.unpacked} bytes with the stored checksum, got others"
            )
        return content


def _inflate(name: str, key: str, packed: memoryview, most: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    except zlib.error as error:
        raise FormatError(f"{name} {key}: expected a deflated array, got a damaged one: {error}") from error


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    unpacked: int
    offset: int


def _entries(name: str, content: memoryview, limits: Limits) -> list[tuple[str, _Entry]]:
    """The central directory by key, refused where it asks for too much or contradicts itself."""
    count, position, end = _directory(name, content)
    refuse_above(limits.members, count, f"{name}: members")
    entries: dict[str, _Entry] = {}
    for _ in range(count):
        entry, position = _entry(name, content, position, end)
        key = _key(name, entry)
        if key in entries:
            raise HostileFile(f"{name}: expected each member once, got {key!r} twice")
        entries[key] = entry
    require_unpacked(name, unpacked=sum(e.unpacked for e in entries.values()), packed=len(content), limits=limits)
    _refuse_overlap(name, entries)
    return list(entries.items())


def _directory(name: str, content: memoryview) -> tuple[int, int, int]:
    """Number of members, first byte of the central directory, and the byte behind it."""
    at = bytes(content[-65557:]).rfind(b"PK\x05\x06")
    if at < 0:
        raise FormatError(f"{name}: expected an npz file, got no zip archive or a truncated one")
    at += max(0, len(content) - 65557)
    _, disk, start_disk, here, count, size, offset, _ = _END.unpack_from(content, at)
    if 0xFFFF in (here, count) or 0xFFFFFFFF in (size, offset):
        magic, _, at64, _ = _LOCATOR.unpack_from(content, max(0, at - _LOCATOR.size))
        if magic != b"PK\x06\x07" or at64 > len(content):
            raise FormatError(f"{name}: expected a zip directory of 64 bits, got a damaged one")
        _, _, _, _, disk, start_disk, here, count, size, offset = _END64.unpack_from(content, at64)
    if disk or start_disk or here != count or offset + size > len(content):
        raise FormatError(f"{name}: expected a directory within the file, got {count} members at {offset}")
    return count, offset, offset + size


def _entry(name: str, content: memoryview, position: int, end: int) -> tuple[_Entry, int]:
    """The entry of the directory at `position`, and where the next one begins."""
    magic, _, _, flags, method, _, _, crc, packed, unpacked, n, extra, comment, _, _, _, offset = _ENTRY.unpack_from(
        content, position
    )
    position += _ENTRY.size
    after = position + n + extra + comment
    if magic != b"PK\x01\x02" or after > end:
        raise FormatError(f"{name}: expected a zip directory, got a damaged one")
    sizes = [unpacked, packed, offset]
    wide = [i for i, size in enumerate(sizes) if size == 0xFFFFFFFF]
    if wide:
        values = _zip64(bytes(content[position + n : position + n + extra]), len(wide))
        for i, value in zip(wide, values, strict=True):
            sizes[i] = value
    unpacked, packed, offset = sizes
    return _Entry(bytes(content[position : position + n]), flags, method, crc, packed, unpacked, offset), after


def _zip64(extra: bytes, count: int) -> tuple[int, ...]:
    position = 0
    while position < len(extra):
        tag, size = struct.unpack_from("<2H", extra, position)
        if tag == 1:
            return struct.unpack_from(f"<{count}Q", extra, position + 4)
        position += 4 + size
    raise struct.error("sizes of 64 bits are missing")


def _key(name: str, entry: _Entry) -> str:
    if not re.fullmatch(rb"[A-Za-z0-9_][A-Za-z0-9_. -]*(/[A-Za-z0-9_][A-Za-z0-9_. -]*)*", entry.name):
        raise HostileFile(f"{name}: expected plain member names, got {entry.name[:80]!r}")
    if entry.method not in (_STORED, _DEFLATED) or entry.flags & 0x41:
        raise HostileFile(
            f"{name} {entry.name.decode()}: expected a stored or deflated member, got method {entry.method} "
            f"with flags {entry.flags:#x}"
        )
    return entry.name.decode().removesuffix(".npy")


def _refuse_overlap(name: str, entries: dict[str, _Entry]) -> None:
    ranges = sorted((e.offset, e.offset + _LOCAL.size + len(e.name) + e.packed) for e in entries.values())
    for (_, stop), (start, _) in pairwise(ranges):
        if start < stop:
            raise HostileFile(f"{name}: expected members one after another, got overlapping ones")


def _member(name: str, content: memoryview, entry: _Entry, limits: Limits) -> Member:
    magic, _, _, _, _, _, _, _, _, n, extra = _LOCAL.unpack_from(content, entry.offset)
    begin = entry.offset + _LOCAL.size + n + extra
    packed = content[begin : begin + entry.packed]
    local_name = bytes(content[entry.offset + _LOCAL.size :][:n])
    if magic != b"PK\x03\x04" or local_name != entry.name or len(packed) != entry.packed:
        raise FormatError(f"{name}: expected a zip member, got a damaged or truncated one")
    head: bytes | memoryview = packed[: _HEADER_LIMIT + 12]
    if entry.method == _DEFLATED:
        head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[: 2 * _HEADER_LIMIT], _HEADER_LIMIT + 12)
    elif entry.packed != entry.unpacked:
        raise HostileFile(f"{name}: expected as many bytes stored as declared, got {entry.packed}, {entry.unpacked}")
    shape, dtype, fortran, skip = _npy_header(name, bytes(head))
    asked = require_array(name, shape, dtype.itemsize, limits=limits)
    if skip + asked != entry.unpacked:
        raise HostileFile(f"{name}: expected {entry.unpacked - skip} bytes of array, got shape {shape} of {asked}")
    return Member(shape, dtype, fortran, entry.method, entry.crc, entry.unpacked, skip, packed)


def _npy_header(name: str, head: bytes) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Shape, dtype, whether columns come first, and the bytes before the array."""
    if head[:6] != b"\x93NUMPY" or head[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise FormatError(f"{name}: expected an npy array, got {head[:8]!r}")
    start = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:start], "little")
    refuse_above(_HEADER_LIMIT, length, f"{name}: bytes of the npy header")
    match = _HEADER.fullmatch(head[start : start + length])
    descr = match.group(1).decode() if match else ""
    if match is None or not (descr.lstrip("<>|=") in _NUMBERS or re.fullmatch(r"[<>|=]?[SU]\d{1,6}", descr)):
        raise HostileFile(f"{name}: expected a plain array of numbers, got {head[start : start + length][:80]!r}")
    shape = tuple(int(length) for length in re.findall(rb"\d+", match.group(3)))
    return shape, np.dtype(descr), match.group(2) == b"True", start + length
