"""A file mapped as it is now, whatever happens to its name: no descriptor stays open, so there may be thousands."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.storage import page_cache


def map_file(path: Path, *, resident: bool = False) -> NDArray[np.uint8]:
    """All bytes of a file, read-only [bytes]; raises OSError. Reading where it has been cut since ends the process.

    resident: bring it into memory at once, which is for files that will stay there.
    """
    if resident:
        # what is cached already is cached in small pages
        page_cache.drop(path)
    with path.open("rb") as file:
        whole = _map(file)
    if resident:
        page_cache.bring_in(whole)
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


class HeldFile:
    """A file's bytes as they were when it was held, though it is replaced, removed or appended to; raises OSError.

    resident: bring it into memory at once.
    """

    def __init__(self, path: Path, *, resident: bool = False) -> None:
        self.path = path
        with path.open("rb") as file:
            self._inode, self.whole = os.fstat(file.fileno()).st_ino, _map(file)
        if resident:
            page_cache.bring_in(self.whole)

    def read(self) -> bytes:
        """The bytes, from the file where it still has its name: a disk's error is an OSError then, no signal."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == self._inode:
                    return file.read(len(self.whole))
        except FileNotFoundError:
            pass
        return self.whole.tobytes()
