"""What to visit and how to improve a policy with few simulations: sequential halving and completed values.

Danihelka et al., Policy improvement by planning with Gumbel (2022), sections 3 and 4, appendices A and D.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def halving(considered: int, simulations: int) -> list[int]:
    """For every simulation, how often the root action that it visits was visited before.

    log2(considered) phases share the simulations; each visits its survivors equally often and keeps the better half.
    """
    if considered <= 1:
        return list(range(simulations))
    phases, visits, left = math.ceil(math.log2(considered)), 0, considered
    sequence: list[int] = []
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            sequence += [visits] * left
            visits += 1
        left = max(2, left // 2)
    return sequence[:simulations]


def completed_values(
    q: Float[Tensor, "*R K"], visits: Float[Tensor, "*R K"], logits: Float[Tensor, "*R K"], value: Float[Tensor, "*R"]
) -> Float[Tensor, "*R K"]:
    """Q where an action was visited, else the mixture of the node's value and the visited Qs (equation 33)."""
    seen = visits > 0
    prior = logits.softmax(-1)
    mass = (prior * seen).sum(-1)
    weighted = (prior * torch.where(seen, q, 0.0)).sum(-1) / mass.clamp_min(torch.finfo(q.dtype).tiny)
    total = visits.sum(-1)
    mixed = torch.where(mass > 0, (value + total * weighted) / (1 + total), value)
    return torch.where(seen, q, mixed[..., None])


def preference(
    completed: Float[Tensor, "*R K"], visits: Float[Tensor, "*R K"], *, visit_scale: float, value_scale: float
) -> Float[Tensor, "*R K"]:
    """σ(q) = (c_visit + max N) c_scale q, with q scaled to [0, 1] over the actions (equation 8)."""
    low, high = completed.amin(-1, keepdim=True), completed.amax(-1, keepdim=True)
    scaled = (completed - low) / (high - low).clamp_min(1e-8)
    return (visit_scale + visits.amax(-1, keepdim=True)) * value_scale * scaled


def improved_policy(logits: Float[Tensor, "*R K"], preferences: Float[Tensor, "*R K"]) -> Float[Tensor, "*R K"]:
    """softmax(logits + σ(completed Q)): never worse than the prior where the Qs are exact (equation 11)."""
    return (logits + preferences).softmax(-1)
