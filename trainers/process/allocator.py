"""Keep glibc from handing large buffers back to the kernel after every training step."""

import ctypes

# mallopt's parameter numbers (malloc.h) with the value that keeps memory in the process
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -4, -1, -2, -3


def tune_allocator() -> None:
    """Keep freed memory in the process, where the C library is glibc: others have no mallopt.

    Up to half of a CPU training step is otherwise page faults on activations that were freed a moment before.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 1 << 26, _MMAP_THRESHOLD: 1 << 30}
    for parameter, value in settings.items():  # older glibc refuses the last, which mmap_max=0 makes needless
        mallopt(parameter, value)
