"""What the system keeps of a file in memory: given back, or brought in as a whole in the largest pages there are.

A window of frames is hundreds of small pages; looking each of them up costs as much as copying them.
"""

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LINUX = sys.platform == "linux"
# linux/mman.h
_HUGEPAGE, _POPULATE_READ = 14, 22


def drop(path: Path) -> None:
    """Let go of what is cached of a file and on disk as well; raises OSError."""
    if LINUX:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bring_in(whole: NDArray[np.uint8]) -> None:
    """Read a mapped file now; what cannot be read, or a system that knows no such advice, shows where it is touched."""
    if LINUX and len(whole):
        libc = ctypes.CDLL(None)
        for advice in (_HUGEPAGE, _POPULATE_READ):
            libc.madvise(ctypes.c_void_p(whole.ctypes.data), ctypes.c_size_t(len(whole)), advice)
