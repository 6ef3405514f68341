"""Reads HDF5 without trusting it: links stay in the file, and a data set's size is known before it is read.

Frames are arrays of uint8, or PNG and JPEG pictures of one size each: as a data set of variable-length bytes, of
fixed-length ones, or as rows of bytes [T, n].

The library itself is C and has had faults of its own on damaged files; h5py is imported when used.
"""

import math
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import LIMITS, inside, refuse_above, require_array, require_unpacked
from datamodules.formats.images import decode_picture, is_encoded
from datamodules.formats.protocol import FormatError, HostileFile, reading

CHUNKS = 1 << 20
# the most that a filter makes of one byte
_GROWTH = {"deflate": 1032, "lzf": 96, "shuffle": 1, "fletcher32": 1}
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)


def open_file(root: Path, path: Path) -> Any:
    """The h5py.File `path` inside `root`, for reading; raises HostileFile, FormatError, OSError."""
    import h5py

    real = inside(root, path)
    if not stat.S_ISREG(real.stat().st_mode):
        raise HostileFile(f"{path}: expected a regular file, got a device, FIFO, socket or folder")
    with reading(f"{path}: expected an HDF5 file, got", ERRORS):
        return h5py.File(real, "r")


def names(group: Any, name: str) -> list[str]:
    """The names in a group, sorted; raises HostileFile for too many."""
    with reading(f"{name}: expected a group, got a damaged one", ERRORS):
        refuse_above(LIMITS.files, len(group), f"{name}: members")
        return sorted(group)


def numbered(group: Any, prefix: str, name: str) -> list[str]:
    """The members `<prefix>_<number>` of a group in the order of their numbers; raises as `names`."""
    matches = [re.fullmatch(rf"{prefix}_(\d{{1,12}})", each) for each in names(group, name)]
    return [each for _, each in sorted((int(match[1]), match[0]) for match in matches if match)]


def is_group(found: Any) -> bool:
    """Whether what `member` found holds others."""
    import h5py

    return isinstance(found, h5py.Group)


def member(group: Any, path: str, name: str) -> Any:
    """What lies at `path` below `group`, through hard links only; raises HostileFile, FormatError.

    Soft links may lead in circles and external ones to any file of this machine: neither is followed.
    """
    import h5py

    for part in path.split("/"):
        if not is_group(group):
            raise FormatError(f"{name}: expected a group above {path}, got {type(group).__name__}")
        with reading(f"{name} {path}: expected data, got damage", ERRORS):
            link = group.get(part, getlink=True)
            if link is None:
                raise FormatError(f"{name}: expected {path}, got {', '.join(list(group)[:20])}")
            if type(link) is not h5py.HardLink:
                raise HostileFile(f"{name} {path}: expected data, got a {type(link).__name__}: links are not followed")
            group = group[part]
    return group


def length(group: Any, path: str) -> int:
    """The rows of what lies at `path`, 0 for what has none: it is left out, and named, when it is read."""
    try:
        return int(member(group, path, path).shape[0])
    except (FormatError, AttributeError, IndexError, TypeError):
        return 0


def read(dataset: Any, name: str, rows: slice | None = None) -> NDArray[Any]:
    """The numbers of a data set, or those rows of it; raises HostileFile, FormatError.

    Refused: data in other files, types that hold more than numbers, filters that are not HDF5's own, and sizes that
    the limits forbid, of the whole and of each chunk.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{name}: expected a data set, got {type(dataset).__name__}")
    with reading(f"{name}: expected data, got damage", ERRORS):
        _require_plain(h5py, dataset, name)
        count = dataset.shape[0] if dataset.shape else 1
        begin, end, _ = (rows or slice(None)).indices(count)
        nbytes = require_array(name, (max(0, end - begin), *dataset.shape[1:]), dataset.dtype.itemsize)
        if nbytes and dataset.size * dataset.dtype.itemsize == nbytes:
            require_unpacked(name, unpacked=nbytes, packed=dataset.id.get_storage_size())
        _require_chunks(dataset, name)
        return np.asarray(dataset[begin:end] if dataset.shape else dataset[()])


def read_at(group: Any, path: str, name: str, rows: slice | None = None) -> NDArray[Any]:
    """The numbers at `path` below `group`, as `member` finds and `read` reads them; name: of the group."""
    return read(member(group, path, name), f"{name} {path}", rows)


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


def read_images(dataset: Any, name: str, rows: slice | None = None) -> NDArray[Any]:
    """The frames of a data set, or those rows of it, encoded ones decoded to uint8 [T, h, w, 3 or 1].

    Raises:
        HostileFile, FormatError: as `read`, and for pictures that are too large, of several sizes, or none at all.
    """
    if not _is_encoded(dataset):
        return read(dataset, name, rows)
    frames: list[NDArray[np.uint8]] = []
    for data in _encoded(dataset, name, rows):
        frames.append(decode_picture(data, name, grey=True))
        require_array(name, (len(frames), *frames[0].shape), 1)
        if frames[-1].shape != frames[0].shape:
            raise FormatError(f"{name}: expected pictures of one size, got {frames[0].shape} and {frames[-1].shape}")
    if not frames:
        raise FormatError(f"{name}: expected 1 picture or more, got none")
    return np.stack(frames)


def only_picture(group: Any, name: str, *, axes: tuple[int, ...], depth: int = 1, floats: bool = False) -> str:
    """The path below `group` of the only frames there: uint8 with as many axes as given, or encoded pictures.

    floats: numbers with four axes are frames, too.

    Raises:
        FormatError: where there are none or several; names what there is.
    """
    leaves = list(_leaves(group, name, "", depth))
    pictures = [
        path
        for path, leaf in leaves
        if (leaf.dtype == np.uint8 and leaf.ndim in axes)
        or (floats and leaf.dtype.kind == "f" and leaf.ndim == 4)
        or _is_encoded(leaf)
    ]
    if len(pictures) == 1:
        return pictures[0]
    if pictures:
        what = f"{', '.join(pictures)}: say ?image_key={pictures[0]}, or several as a,b"
    else:
        others = ", ".join(f"{path} {leaf.dtype} {leaf.shape}".strip() for path, leaf in leaves)
        scale = any(leaf.dtype.kind == "f" and leaf.ndim == 4 for _, leaf in leaves)
        remedy = "; floats become uint8 with image_scale=255 where they are in 0..1" if scale else ""
        # what is no group has the last name of its path
        vectors = [path or name.rpartition(" ")[2] for path, leaf in leaves if leaf.dtype.kind in "biuf" and leaf.ndim]
        remedy += f"; numbers are read by name, as observe={','.join(vectors)}" if vectors else ""
        what = f"none, but {others or 'nothing at all'}{remedy}"
    raise FormatError(f"{name}: expected one of uint8 pictures, got {what}")


def _leaves(group: Any, name: str, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    import h5py

    if isinstance(group, h5py.Dataset):
        yield prefix.rstrip("/"), group
    elif depth:
        for key in names(group, name):
            yield from _leaves(member(group, key, name), name, f"{prefix}{key}/", depth - 1)


def _is_encoded(dataset: Any) -> bool:
    """Whether a data set holds PNG or JPEG pictures, as its type and first row say."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or not dataset.shape or not dataset.shape[0]:
        return False
    flexible = h5py.check_vlen_dtype(dataset.dtype) == np.uint8
    fixed = dataset.dtype.kind in "SV" and dataset.dtype.names is None
    if (dataset.ndim == 1 and (flexible or fixed)) or (dataset.ndim == 2 and dataset.dtype == np.uint8):
        return is_encoded(next(_encoded(dataset, dataset.name, slice(0, 1))))
    return False


def _encoded(dataset: Any, name: str, rows: slice | None) -> Iterator[bytes]:
    """The pictures' bytes, row by row; raises HostileFile, FormatError."""
    import h5py

    with reading(f"{name}: expected pictures, got damage", ERRORS):
        begin, end, _ = (rows or slice(None)).indices(len(dataset))
        made = dataset.id.get_create_plist()
        if dataset.is_virtual or made.get_external_count():
            raise HostileFile(f"{name}: expected data in the file itself, got data in other files")
        _require_chunks(dataset, name)
        if h5py.check_vlen_dtype(dataset.dtype) is None:
            require_array(name, (max(0, end - begin), *dataset.shape[1:]), dataset.dtype.itemsize)
        else:
            _require_lengths(dataset, name)
        for row in range(begin, end):
            yield np.asarray(dataset[row]).tobytes()


def _require_lengths(dataset: Any, name: str) -> None:
    """Refuse rows of variable length that say they are longer than the file, or too long together.

    A row is a length of 4 bytes, an address and an index of 4 bytes: the library makes room for the length before it
    looks at the address.
    """
    made, path = dataset.id.get_create_plist(), Path(dataset.file.filename)
    size = 8 + dataset.file.id.get_create_plist().get_sizes()[0]
    require_array(name, dataset.shape, size)
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        with path.open("rb") as file:
            file.seek(offset or 0)
            parts = [file.read(size * len(dataset)) if offset is not None else b""]
    else:
        filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
        if filters not in ([], [1]):
            raise HostileFile(f"{name}: expected pictures stored as they are or deflated, got filters {filters}")
        offsets: list[Any] = []
        dataset.id.chunk_iter(lambda chunk: offsets.append(chunk.chunk_offset))
        packed = [dataset.id.read_direct_chunk(offset) for offset in offsets]
        most = size * math.prod(dataset.chunks)
        parts = [zlib.decompressobj().decompress(data, most) if filters and not mask else data for mask, data in packed]
    tables = [np.frombuffer(part, np.uint8, len(part) // size * size).reshape(-1, size) for part in parts]
    lengths = np.concatenate([table[:, :4].copy().view("<u4")[:, 0] for table in tables]).astype(np.int64)
    refuse_above(path.stat().st_size, int(lengths.max(initial=0)), f"{name}: bytes of a picture")
    refuse_above(LIMITS.episode_bytes, int(lengths.sum()), f"{name}: bytes of pictures")
