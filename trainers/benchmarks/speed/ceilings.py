"""What this machine can do at most: products a second, and bytes of memory a second."""

from collections.abc import Callable

import torch

from worldmodel._packed import Product

# of the largest rate: on a CPU a packed product of this size stays in the cache
SIDE = {"cpu": 512, "cuda": 8192}
NUMBERS = {"cpu": 2**24, "cuda": 2**28}


def product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A square product, and its GFLOP."""
    side = SIDE[device.type]
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    packed = Product(right, None, dtype)  # on a CPU up to four times as fast as torch.mm
    return torch.no_grad()(lambda: packed(left)), 2e-9 * side**3


def copy(device: torch.device) -> tuple[Callable[[], object], float]:
    """A copy beyond every cache, and the GB that are read and written."""
    numbers = torch.ones(NUMBERS[device.type], device=device)
    out = torch.empty_like(numbers)
    return lambda: out.copy_(numbers), 2e-9 * numbers.nbytes
