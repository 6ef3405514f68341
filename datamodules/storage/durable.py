"""File operations that must survive a crash or a failing disk: whole writes, retries, and one thread at a time.

A disk that refuses for a moment is asked again; one that goes on refusing is named, and nothing is dropped.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from worldmodel.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
RETRIES = 3
# what a moment's wait cannot mend
LASTING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOENT", "EEXIST", "ENOTDIR", "EISDIR")
}


def retry(call: Callable[[], R], *, wait_s: float = 0.05) -> R:
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


def sync(path: Path) -> None:
    """Make the bytes of a file durable, or the created, renamed and removed entries of a folder; raises OSError."""
    fd = os.open(path, os.O_RDONLY)
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
    temporary = beside(path)
    temporary.unlink(missing_ok=True)
    write_new(temporary, data)
    temporary.replace(path)
    sync(path.parent)


def beside(path: Path) -> Path:
    """The name under which a file is written before it takes the place of `path`."""
    # a rename is atomic within one file system only
    return path.with_name(f".{path.name}.tmp")


def publish(path: Path) -> None:
    """Let the file that was written `beside` take the place of `path`, whole and durable; raises OSError."""
    sync(beside(path))
    beside(path).replace(path)
    sync(path.parent)


class ReplayWriteFailed(UserError, OSError):
    """Rows could not be written; names the folder, the cause, the free space and how to go on."""


def retry_writes(method: Callable[P, R]) -> Callable[P, R]:
    """A method that an OSError leaves without effect, called up to 3 times more; raises ReplayWriteFailed.

    Its object's `path` is the folder that it writes to, or None.
    """

    @wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        try:
            return retry(lambda: method(*args, **kwargs))
        except OSError as error:
            free = shutil.disk_usage(owner.path).free if owner.path and owner.path.exists() else 0
            cause = f"replay in {owner.path}: {error.strerror or error} ({free / 1e9:.2f} GB are free)"
            way_on = "every row before is kept; call again, or resume the run, when the disk takes data again"
            raise ReplayWriteFailed(error.errno, f"{cause}: {way_on}") from error

    return wrapped


def synchronized(method: Callable[P, R]) -> Callable[P, R]:
    """A method that runs while its object's `lock` (a threading.RLock) is held."""

    @wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        with owner.lock:
            return method(*args, **kwargs)

    return wrapped
