"""The one sample, score, refit loop that every shooting planner runs (Algorithm 21)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Plan, Simulator
from worldmodel.simulator import propose_sequences, score


@dataclass(frozen=True, slots=True)
class Proposal:
    """A diagonal Gaussian over action sequences."""

    mean: Float[Tensor, "B H A"]
    std: Float[Tensor, "B H A"]


class Refit(Protocol):
    """The line in which shooting planners differ."""

    def __call__(self, proposal: Proposal, actions: Float[Tensor, "B N H A"], scores: Float[Tensor, "B N"]) -> Proposal:
        """A new proposal from scored candidates; -inf marks candidates that must not count."""


def search(
    simulator: Simulator,
    latent: Float[Tensor, "B D"],
    refit: Refit,
    *,
    horizon: int,
    candidates: int,
    iterations: int,
    policy_candidates: int,
    init_std: float,
    warm: Float[Tensor, "B H A"] | None,
    generator: torch.Generator | None,
) -> Plan:
    """Sample, score, refit; the plan is the last proposal's mean, or the best candidate where that is not finite.

    policy_candidates sequences of the simulator's policy join the samples of every iteration; the first iteration
    starts around their mean where there is no warm start.
    """
    B = latent.shape[0]
    usable = latent.isfinite().all(-1)
    latent = torch.where(usable[:, None], latent, 0.0)
    fixed = None
    if policy_candidates:
        fixed = propose_sequences(simulator, latent, count=policy_candidates, horizon=horizon, generator=generator)
    mean = _start(fixed, warm, (B, horizon, simulator.action_dim), latent)
    proposal = Proposal(mean=mean, std=torch.full_like(mean, init_std))
    best_value, best = latent.new_full((B,), -torch.inf), mean
    for _ in range(iterations):
        actions = _sample(proposal, candidates, fixed, generator)
        scores = score(simulator, latent, actions)
        scores = torch.where(scores.isfinite() & usable[:, None], scores, -torch.inf)
        best_value, best = _keep_best(best_value, best, actions, scores)
        proposal = refit(proposal, actions, scores)
    mean = torch.where(proposal.mean.isfinite().all((-2, -1), keepdim=True), proposal.mean, best).clamp(-1, 1)
    return Plan(action=mean[:, 0], mean=mean, value=best_value)


def finite(scores: Float[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """Which candidates may count."""
    return scores > -torch.inf


def _start(fixed: Tensor | None, warm: Tensor | None, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    if warm is not None:
        return torch.where(warm.isfinite(), warm, 0.0).clamp(-1, 1)
    if fixed is not None:
        return torch.where(fixed.isfinite(), fixed, 0.0).mean(1).clamp(-1, 1)
    return like.new_zeros(shape)


def _sample(proposal: Proposal, count: int, fixed: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Clamped samples [B N H A] of the proposal, its mean first, the policy's sequences last."""
    B, H, A = proposal.mean.shape
    noise = standard_normal(B, count, H, A, generator=generator, device=proposal.mean.device)
    noise[:, 0] = 0
    drawn = torch.addcmul(proposal.mean[:, None], noise, proposal.std[:, None])
    actions = drawn if fixed is None else torch.cat([drawn, fixed], 1)
    return actions.clamp_(-1, 1).nan_to_num_(0.0)


def _keep_best(value: Tensor, best: Tensor, actions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    top, index = scores.max(1)
    better = top > value
    winner = actions[torch.arange(len(index), device=index.device), index]
    return torch.where(better, top, value), torch.where(better[:, None, None], winner, best)
