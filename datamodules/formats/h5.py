"""Reads HDF5 without trusting it: links stay in the file, and a data set's size is known before it is read.

The library itself is C and has had faults of its own on damaged files; h5py is imported when used.
"""

import math
import stat
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import LIMITS, inside, refuse_above, require_array, require_unpacked
from datamodules.formats.protocol import FormatError, HostileFile

CHUNKS = 1 << 20
# the most that a filter makes of one byte
_GROWTH = {"deflate": 1032, "lzf": 96, "shuffle": 1, "fletcher32": 1}
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)


def open_file(root: Path, path: Path) -> Any:
    """The h5py.File `path` inside `root`, for reading; raises HostileFile, FormatError, OSError."""
    import h5py

    real = inside(root, path)
    if not stat.S_ISREG(real.stat().st_mode):
        raise HostileFile(f"{path}: expected a regular file, got a device, FIFO, socket or folder")
    try:
        return h5py.File(real, "r")
    except ERRORS as error:
        raise FormatError(f"{path}: expected an HDF5 file, got {error}") from error


def names(group: Any, name: str) -> list[str]:
    """The names in a group, sorted; raises HostileFile for too many."""
    try:
        refuse_above(LIMITS.files, len(group), f"{name}: members")
        return sorted(group)
    except ERRORS as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{name}: expected a group, got a damaged one: {error}") from error


def member(group: Any, path: str, name: str) -> Any:
    """What lies at `path` below `group`, through hard links only; raises HostileFile, FormatError.

    Soft links may lead in circles and external ones to any file of this machine: neither is followed.
    """
    import h5py

    for part in path.split("/"):
        if not isinstance(group, h5py.Group):
            raise FormatError(f"{name}: expected a group above {path}, got {type(group).__name__}")
        try:
            link = group.get(part, getlink=True)
            if link is None:
                raise FormatError(f"{name}: expected {path}, got {', '.join(list(group)[:20])}")
            if type(link) is not h5py.HardLink:
                raise HostileFile(f"{name} {path}: expected data, got a {type(link).__name__}: links are not followed")
            group = group[part]
        except ERRORS as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{name} {path}: expected data, got damage: {error}") from error
    return group


def read(dataset: Any, name: str, rows: slice | None = None) -> NDArray[Any]:
    """The numbers of a data set, or those rows of it; raises HostileFile, FormatError.

    Refused: data in other files, types that hold more than numbers, filters that are not HDF5's own, and sizes that
    the limits forbid, of the whole and of each chunk.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{name}: expected a data set, got {type(dataset).__name__}")
    try:
        _require_plain(h5py, dataset, name)
        count = dataset.shape[0] if dataset.shape else 1
        begin, end, _ = (rows or slice(None)).indices(count)
        asked = require_array(name, (max(0, end - begin), *dataset.shape[1:]), dataset.dtype.itemsize)
        if asked and dataset.size * dataset.dtype.itemsize == asked:
            require_unpacked(name, unpacked=asked, packed=dataset.id.get_storage_size())
        _require_chunks(dataset, name)
        return np.asarray(dataset[begin:end] if dataset.shape else dataset[()])
    except (*ERRORS, MemoryError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{name}: expected data, got damage: {error}") from error


def _require_plain(h5py: Any, dataset: Any, name: str) -> None:
    kind = dataset.id.get_type().get_class()
    enum = kind == h5py.h5t.ENUM and dataset.dtype.kind == "b"  # how h5py stores booleans
    if not enum and (kind not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) or dataset.dtype.kind not in "iuf"):
        raise HostileFile(f"{name}: expected numbers, got {dataset.dtype}")
    made = dataset.id.get_create_plist()
    if dataset.is_virtual or made.get_external_count():
        raise HostileFile(f"{name}: expected data in the file itself, got data in other files")


def _require_chunks(dataset: Any, name: str) -> None:
    """Refuse chunks that are too large or too many, or that unpack to more than they are."""
    if dataset.chunks is None:
        return
    size = require_array(f"{name} chunk", dataset.chunks, dataset.dtype.itemsize)
    parts = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    refuse_above(CHUNKS, math.prod(parts), f"{name}: chunks")
    made = dataset.id.get_create_plist()
    filters = [_FILTERS.get(made.get_filter(i)[0], str(made.get_filter(i)[0])) for i in range(made.get_nfilters())]
    unknown = [each for each in filters if each not in _GROWTH]
    if unknown or len(set(filters)) < len(filters):
        raise HostileFile(f"{name}: expected filters of {', '.join(_GROWTH)}, each once, got {filters}")
    growth = math.prod(_GROWTH[each] for each in filters)
    large: list[Any] = []
    if growth > 1:
        # the library unpacks to whatever comes out, however much more than a chunk
        dataset.id.chunk_iter(lambda chunk: large.append(chunk) if chunk.size * growth > LIMITS.episode_bytes else None)
    for chunk in large:
        if filters[-1] != "deflate" or chunk.filter_mask or len(filters) > 2:
            raise HostileFile(
                f"{name}: expected chunks of at most {LIMITS.episode_bytes // growth} bytes, got {chunk.size}"
            )
        _require_inflated(dataset.id.read_direct_chunk(chunk.chunk_offset)[1], size, name)


def _require_inflated(packed: bytes, most: int, name: str) -> None:
    stream, total, step = zlib.decompressobj(), 0, 1 << 24
    while packed and not stream.eof:
        total += len(stream.decompress(packed, step))
        refuse_above(most, total, f"{name}: bytes of a chunk unpacked")
        packed = stream.unconsumed_tail
