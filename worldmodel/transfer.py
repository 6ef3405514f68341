"""From the host to a device without waiting for what the device has still to do."""

import functools

import torch
from jaxtyping import Shaped
from torch import Tensor


def send(rows: Shaped[Tensor, "*F"], device: torch.device | str) -> Shaped[Tensor, "*F"]:
    """The same tensor on a device.

    A copy from ordinary memory drains a GPU's queue first; from page-locked memory it takes its place in the queue.
    """
    device = torch.device(device)
    if rows.device.type == "cpu" and device.type == "cuda":
        rows = rows.pin_memory()
    return rows.to(device, non_blocking=device.type != "cpu")


@functools.cache
def resident(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Shaped[Tensor, "N"]:
    """Numbers that stay on a device once they were sent there: nothing crosses at each use; not to be written."""
    with torch.inference_mode(False):  # gradients may flow past them later
        return send(torch.tensor(numbers, dtype=dtype), device)
