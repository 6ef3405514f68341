"""From the host to a device without waiting for what the device has still to do."""

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
