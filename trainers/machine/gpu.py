"""The GPUs of this machine, as torch knows them."""

import torch


def gpu_uuid(number: int) -> str | None:
    """The UUID of a GPU by its number in CUDA, None where torch does not know it."""
    return str(getattr(torch.cuda.get_device_properties(number), "uuid", "")) or None
