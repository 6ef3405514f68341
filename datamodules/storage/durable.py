"""The few file operations that must survive a crash: whole writes, and folders that remember their entries."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

R = TypeVar("R")
RETRIES = 3
# what a moment's wait cannot mend
LASTING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOENT", "EEXIST", "ENOTDIR", "EISDIR")
}


def retried(call: Callable[[], R], *, wait_s: float = 0.05) -> R:
    """The result of `call`, made again up to 3 times after an OSError that may pass; raises the last one."""
    for attempt in range(RETRIES):
        try:
            return call()
        except OSError as error:
            if error.errno in LASTING:
                raise
            time.sleep(wait_s * 4**attempt)
    return call()


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte of `data`; raises OSError where the file system stops, having written an unknown part."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed entries of `folder` durable; raises OSError."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Create `path` with `data`, durable on return except for its folder entry; raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a crash leaves the old or the new content; raises OSError."""
    # beside the target, because a rename is atomic within one file system only
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write_new(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)
