"""The cores and GPUs of this machine."""

import os


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use, in ascending order."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def gpu_uuid(number: int) -> str | None:
    """The UUID of a GPU by its number in CUDA, None where torch does not know it."""
    import torch  # takes seconds, which whoever counts cores does without

    return str(getattr(torch.cuda.get_device_properties(number), "uuid", "")) or None
