"""Keep glibc from handing large buffers back to the kernel after every training step."""

import ctypes

# mallopt's parameter numbers (malloc.h) with the value that keeps memory in the process
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -4, -1, -2, -3


def tune_allocator() -> bool:
    """Keep freed memory in the process; whether the C library took it (glibc does, others have no mallopt).

    Up to half of a CPU training step is otherwise page faults on activations that were freed a moment before.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 1 << 26, _MMAP_THRESHOLD: 1 << 30}
    # every one is tried: older glibc refuses the last, which mmap_max=0 makes needless
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings.items()]
    return all(accepted[:3])
