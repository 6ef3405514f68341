"""Collectives over the ranks of a run."""

from typing import Any

import torch
from torch import distributed


def sum_over_ranks(numbers: list[int]) -> list[int]:
    """Elementwise sums over all ranks; the numbers themselves without a process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return numbers
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(numbers, dtype=torch.int64, device=device)
    distributed.all_reduce(total)
    return [int(number) for number in total]


def gather_over_ranks(value: Any) -> list[Any]:
    """Every rank's value in rank order, on every rank."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank_zero(tensor: torch.Tensor) -> None:
    """Overwrite a tensor with rank 0's."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast(tensor, src=0)
