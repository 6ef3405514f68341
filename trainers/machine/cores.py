"""Which cores a process may use."""

import os


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use, in ascending order."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
