"""Collectives over the ranks of a run."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import distributed


class RanksDiverged(RuntimeError):
    """Ranks that must hold the same weights do not."""


def rank_count() -> int:
    """How many ranks learn together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank_number() -> int:
    """This process among those that learn together."""
    return distributed.get_rank() if rank_count() > 1 else 0


def sum_over_ranks(numbers: list[int]) -> list[int]:
    """Elementwise sums over all ranks; the numbers themselves without a process group."""
    if rank_count() == 1:
        return numbers
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(numbers, dtype=torch.int64, device=device)
    distributed.all_reduce(total)
    return [int(number) for number in total]


def gather_over_ranks(value: Any) -> list[Any]:
    """Every rank's value in rank order, on every rank."""
    ranks = rank_count()
    if ranks == 1:
        return [value]
    gathered: list[Any] = [None] * ranks
    distributed.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank_zero(tensor: torch.Tensor) -> None:
    """Overwrite a tensor with rank 0's."""
    if rank_count() > 1:
        distributed.broadcast(tensor, src=0)


def average_over_ranks(tensors: Sequence[torch.Tensor]) -> None:
    """Overwrite float tensors with their means over all ranks, in one collective.

    Sums are of float64: what is the same on all ranks stays as it is, to the bit.
    """
    ranks = rank_count()
    if ranks == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten().double() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= ranks
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def require_same_weights(module: torch.nn.Module) -> None:
    """Raise RanksDiverged, on all ranks, where a module's weights and statistics are not the same on all of them."""
    prints = gather_over_ranks(fingerprint(module))
    if len(set(prints)) > 1:
        raise RanksDiverged(f"weights and statistics: expected the same on all ranks, got SHA-256 {prints}")


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of all weights and of what is measured as they are learned."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def mean_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The mean of each metric over the ranks that have it; called on all ranks."""
    gathered = gather_over_ranks(dict(metrics))
    if len(gathered) == 1:
        return dict(metrics)
    names = dict.fromkeys(name for rank in gathered for name in rank)
    return {name: float(np.mean([rank[name] for rank in gathered if name in rank])) for name in names}


def rank_seed(seed: int, rank: int, *, generation: int = 0) -> int:
    """The seed of a rank's own noise, no other rank's, run's or generation's; `seed` itself on the first rank of 0."""
    if rank == generation == 0:
        return seed
    entropy = [seed, rank, generation] if generation else [seed, rank]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
