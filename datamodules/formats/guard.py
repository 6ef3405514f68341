"""What a data set may ask for: its paths stay inside its folder, and every size is checked before memory is touched.

Everything here answers with HostileFile, which names the file, the limit and what was asked for.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.formats.protocol import FormatError, HostileFile, Problem
from datamodules.storage.durable import write_atomic
from worldmodel.spec import EnvSpec

# parsed, a document can take thirty times its bytes
JSON_BYTES = 1 << 24
DEPTH = 3
_FIELDS = {"task": str, "action_dim": int, "action_repeat": int, "episode_steps": int, "look": str, "backend": str}


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one data set may ask for.

    files: of a scan. members: of one archive. episode_bytes: of one episode or file once it is unpacked.
    ratio: of unpacked to packed bytes, which counts above ratio_free_bytes only (black frames pack 1000:1, and
    harm nobody while they are few). text_bytes: of one JSON or CSV file. image_side: rows or columns of one frame.
    image_pixels: of one frame. frames: of one film.
    """

    files: int = 1_000_000
    members: int = 256
    episode_bytes: int = 1 << 30
    ratio: int = 200
    ratio_free_bytes: int = 1 << 26
    text_bytes: int = 1 << 28
    image_side: int = 8192
    image_pixels: int = 1 << 24
    frames: int = 1 << 22


LIMITS = Limits()


def refuse_above(limit: int, amount: int, name: str) -> None:
    """Raise HostileFile where `asked` is more than `limit`; name: of the file and of what is counted."""
    if amount > limit:
        raise HostileFile(f"{name}: expected at most {limit}, got {amount}")


def require_unpacked(name: str, *, unpacked: int, packed: int) -> None:
    """Refuse a file that says it unpacks to too much, or to too much of what it takes."""
    refuse_above(LIMITS.episode_bytes, unpacked, f"{name}: bytes unpacked")
    if unpacked > LIMITS.ratio_free_bytes:
        refuse_above(LIMITS.ratio, unpacked // max(packed, 1), f"{name}: unpacked to packed bytes")


def require_array(name: str, shape: Sequence[int], itemsize: int) -> int:
    """The bytes of an array of this shape; refuses too many, in integers that cannot overflow."""
    if any(length < 0 for length in shape):
        raise HostileFile(f"{name}: expected no negative lengths, got shape {tuple(shape)}")
    amount = itemsize * math.prod(int(length) for length in shape)
    refuse_above(LIMITS.episode_bytes, amount, f"{name}: bytes of shape {tuple(shape)}")
    return amount


def require_image(name: str, width: int, height: int) -> None:
    """Refuse a frame whose header asks for too many pixels; call it before decoding."""
    refuse_above(LIMITS.image_side, max(width, height), f"{name}: pixels on a side")
    refuse_above(LIMITS.image_pixels, width * height, f"{name}: pixels of one frame")


def inside(root: Path, path: Path) -> Path:
    """`path` (absolute, or relative to `root`) without symlinks; refuses one that is not inside `root`.

    The data set's own folder may be a symlink: only what lies in it must not lead out. Raises HostileFile.
    """
    if re.search(r"[\x00-\x1f\x7f]", str(path)):
        raise HostileFile(f"{str(path)!r}: expected a name without control characters")
    real_root = root.resolve()
    try:
        real = (root / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a symlink loop, before Python 3.13
        raise HostileFile(f"{path}: expected a file inside {root}, got {error}") from error
    if not real.is_relative_to(real_root):
        raise HostileFile(f"{path}: expected a path inside {root}, got {real}")
    return real


def open_inside(root: Path, path: Path) -> int:
    """A descriptor of the regular file `path` inside `root`; the caller's to close. Raises HostileFile, OSError."""
    real = inside(root, path)
    # O_NONBLOCK: opening a FIFO must not wait for a writer; O_NOFOLLOW: no link may appear after the check
    fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise HostileFile(f"{path}: expected a regular file, got a device, FIFO, socket or folder")
    return fd


def read_inside(root: Path, path: Path, *, limit: int = LIMITS.text_bytes) -> bytes:
    """The content of the regular file `path` inside `root`, at most `limit` bytes; raises HostileFile, OSError."""
    fd = open_inside(root, path)
    try:
        size = os.fstat(fd).st_size
        refuse_above(limit, size, f"{path}: bytes")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(size)
    finally:
        os.close(fd)


def find_files(root: Path, suffixes: Sequence[str]) -> tuple[list[Path], list[Problem]]:
    """Files below `root` with one of `suffixes`, relative to it and sorted, and what is left out of them.

    Folders are entered up to DEPTH levels, links to folders never; a hidden name is an unfinished file.
    Raises HostileFile for too many files, OSError where `root` itself cannot be read.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    for entry in _walk(root, DEPTH, problems):
        if not entry.name.endswith(tuple(suffixes)) or entry.name.startswith("."):
            continue
        refuse_above(LIMITS.files, len(files) + len(problems) + 1, f"{root}: files")
        path = Path(entry.path).relative_to(root)
        try:
            if not stat.S_ISREG(inside(root, path).stat().st_mode):
                raise HostileFile(f"{path}: expected a regular file, got a device, FIFO, socket or folder")
            files.append(path)
        except HostileFile as error:
            problems.append(Problem(repr(str(path)), str(error)))
    return sorted(files), problems


def files_at(path: Path, suffixes: Sequence[str]) -> tuple[Path, list[Path], list[Problem]]:
    """The folder, the files below it and what is left out; of a path to a file its folder, and that file alone.

    Raises HostileFile, OSError.
    """
    path = path.resolve()
    if path.is_dir():
        return path, *find_files(path, suffixes)
    return path.parent, [Path(path.name)], []


def _walk(folder: Path, depth: int, problems: list[Problem]) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield from _unless_folder_link(entry, problems)
            elif depth > 1:
                yield from _walk(Path(entry.path), depth - 1, problems)


def _unless_folder_link(entry: "os.DirEntry[str]", problems: list[Problem]) -> Iterator["os.DirEntry[str]"]:
    if entry.is_symlink() and Path(entry.path).is_dir():
        problems.append(Problem(repr(entry.name), "expected a folder, got a link to one: it is not entered"))
    else:
        yield entry


def read_json(root: Path, path: Path) -> dict[str, Any]:
    """The JSON object in the file `path` inside `root`; raises HostileFile, FormatError, OSError."""
    data = read_inside(root, path, limit=JSON_BYTES)
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise HostileFile(f"{path}: expected JSON, got one that is nested too deeply") from error
    except ValueError as error:
        raise FormatError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Put a JSON object at `path`, old or new after a crash; raises OSError."""
    write_atomic(path, json.dumps(content, indent=2).encode())


def spec_from(fields: object, name: str) -> EnvSpec:
    """The spec that `EnvSpec.to_json` wrote, each field checked; raises FormatError, HostileFile."""
    if not isinstance(fields, dict):
        raise FormatError(f"{name} spec: expected an object, got {type(fields).__name__}")
    for key, kind in _FIELDS.items():
        if key in fields and (not isinstance(fields[key], kind) or isinstance(fields[key], bool)):
            raise FormatError(f"{name} spec.{key}: expected {kind.__name__}, got {fields[key]!r:.40}")
    images = {"pixels": fields["pixels"]} if "pixels" in fields else fields.get("images")
    vectors = fields.get("vectors", {})
    if not isinstance(images, dict) or not isinstance(vectors, dict):
        raise FormatError(f"{name} spec: expected images and vectors by name, got {images!r:.40} and {vectors!r:.40}")
    shapes = [(f"spec.images[{key}]", shape, 3) for key, shape in images.items()]
    shapes += [(f"spec.vectors[{key}]", [count], 1) for key, count in vectors.items()]
    for key, shape, ndim in shapes:
        if not (isinstance(shape, list) and len(shape) == ndim and all(type(n) is int and n > 0 for n in shape)):
            raise FormatError(f"{name} {key}: expected {ndim} whole numbers above 0, got {shape!r:.40}")
        refuse_above(LIMITS.image_pixels, math.prod(shape), f"{name} {key}: values")
    try:
        return EnvSpec.from_json(fields)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{name} spec: {error}") from error
