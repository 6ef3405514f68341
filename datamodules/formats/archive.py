"""Reads npz files without trusting them: directory and headers are checked as numbers before any array is made.

`zipfile` reads the directory. Headers are matched, never evaluated (numpy's own reader would compile them), nothing is
unpickled, and no stream is unpacked further than it says.
"""

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import LIMITS, read_inside, refuse_above, require_array, require_unpacked
from datamodules.formats.protocol import FormatError, HostileFile, reading

_LOCAL = struct.Struct("<4s5H3L2H")  # the header before each member: PKWARE's APPNOTE 6.3
_HEADER_LIMIT = 10_000
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z?]\d*)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,20}L?, ?)*(?:\d{1,20}L?)?)\),? ?\} *\n?"
)
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_DAMAGE = (zipfile.BadZipFile, struct.error, zlib.error, UnicodeDecodeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an archive before it is read; shape and dtype are its header's."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    info: zipfile.ZipInfo
    skip: int  # bytes of the npy header
    packed: memoryview

    @property
    def unpacked(self) -> int:
        """Bytes of header and array."""
        return self.info.file_size


class Archive:
    """The arrays of one npz file, checked when opened and unpacked one by one; raises HostileFile, FormatError."""

    def __init__(self, root: Path, path: Path) -> None:
        self.name = str(path)
        content = read_inside(root, path, limit=LIMITS.episode_bytes)
        with reading(f"{self.name}: expected an npz file, got a damaged one", _DAMAGE):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                infos = archive.infolist()
            refuse_above(LIMITS.members, len(infos), f"{self.name}: members")
            keys = _keys(self.name, infos)
            nbytes = sum(info.file_size for info in infos)
            require_unpacked(self.name, unpacked=nbytes, packed=len(content))
            _refuse_overlap(self.name, infos)
            view = memoryview(content)
            self.members = {key: _member(f"{self.name} {key}", view, info) for key, info in keys.items()}

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def read(self, key: str) -> NDArray:
        """The array `key`, which may be a view of what was read; raises FormatError where it is missing or damaged."""
        if key not in self.members:
            raise FormatError(f"{self.name}: expected key {key!r}, got {', '.join(self.members)}")
        member = self.members[key]
        if member.dtype.kind in "SU":
            raise FormatError(f"{self.name} {key}: expected numbers, got {member.dtype}")
        flat = np.frombuffer(self._unpack(key, member), member.dtype, offset=member.skip)
        return flat.reshape(member.shape[::-1]).T if member.fortran else flat.reshape(member.shape)

    def _unpack(self, key: str, member: Member) -> bytes | memoryview:
        content: bytes | memoryview = member.packed
        with reading(f"{self.name} {key}: expected a deflated array, got a damaged one", (zlib.error,)):
            if member.info.compress_type == zipfile.ZIP_DEFLATED:
                # one byte more than declared, so that a stream that goes on is noticed and goes no further
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(member.packed, member.unpacked + 1)
        if len(content) != member.unpacked or zlib.crc32(content) != member.info.CRC:
            raise FormatError(
                f"{self.name} {key}: expected {member.unpacked} bytes with the stored checksum, got others"
            )
        return content


def _keys(name: str, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The members by key, refused where a name or a way of packing is none of numpy's."""
    keys: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        stored = info.orig_filename
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. -]*(/[A-Za-z0-9_][A-Za-z0-9_. -]*)*", stored):
            raise HostileFile(f"{name}: expected plain member names, got {stored[:80]!r}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 0x41:
            raise HostileFile(
                f"{name} {stored}: expected a stored or deflated member, got method {info.compress_type} "
                f"with flags {info.flag_bits:#x}"
            )
        key = stored.removesuffix(".npy")
        if key in keys:
            raise HostileFile(f"{name}: expected each member once, got {key!r} twice")
        keys[key] = info
    return keys


def _refuse_overlap(name: str, infos: list[zipfile.ZipInfo]) -> None:
    ends = (info.header_offset + _LOCAL.size + len(info.orig_filename) + info.compress_size for info in infos)
    ranges = sorted(zip((info.header_offset for info in infos), ends, strict=True))
    for (_, stop), (start, _) in pairwise(ranges):
        if start < stop:
            raise HostileFile(f"{name}: expected members one after another, got overlapping ones")


def _member(name: str, content: memoryview, info: zipfile.ZipInfo) -> Member:
    # zipfile moves offsets where something lies before an archive; numpy writes nothing there
    magic, *_, length, extra = _LOCAL.unpack_from(content, info.header_offset)
    begin = info.header_offset + _LOCAL.size + length + extra
    packed = content[begin : begin + info.compress_size]
    stored = content[info.header_offset + _LOCAL.size :][:length]
    if magic != b"PK\x03\x04" or bytes(stored) != info.orig_filename.encode() or len(packed) != info.compress_size:
        raise FormatError(f"{name}: expected a zip member, got a damaged or truncated one")
    head: bytes | memoryview = packed[: _HEADER_LIMIT + 12]
    if info.compress_type == zipfile.ZIP_DEFLATED:
        head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[: 2 * _HEADER_LIMIT], _HEADER_LIMIT + 12)
    elif info.compress_size != info.file_size:
        raise HostileFile(f"{name}: expected as many bytes stored as declared, got {len(packed)}, {info.file_size}")
    shape, dtype, fortran, skip = _npy_header(name, bytes(head))
    nbytes = require_array(name, shape, dtype.itemsize)
    if skip + nbytes != info.file_size:
        raise HostileFile(f"{name}: expected {info.file_size - skip} bytes of array, got shape {shape} of {nbytes}")
    return Member(shape, dtype, fortran, info, skip, packed)


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
