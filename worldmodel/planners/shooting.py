"""The one sample, score, refit loop that every shooting planner runs (Algorithm 21)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise, Plan, Simulator
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
    generator: Noise,
) -> Plan:
    """Sample, score, refit; the plan is the last proposal's mean, or the best candidate where that is not finite.

    policy_candidates sequences of the simulator's policy join the samples of every iteration. The first iteration
    starts around `warm`; where that is None or NaN, around the mean of the policy's sequences.
    """
    B = latent.shape[0]
    usable = latent.isfinite().all(-1)
    latent = torch.where(usable[:, None], latent, 0.0)
    fixed, fixed_scores = None, None
    if policy_candidates:
        fixed = propose_sequences(simulator, latent, count=policy_candidates, horizon=horizon, generator=generator)
    if fixed is not None:
        fixed = _valid(fixed)
        fixed_scores = score(simulator, latent, fixed)  # once: they are the same in every iteration
    mean = _start(fixed, warm, (B, horizon, simulator.action_dim), latent)
    proposal = Proposal(mean=mean, std=torch.full_like(mean, init_std))
    best_value, best = latent.new_full((B,), -torch.inf), mean
    for _ in range(iterations):
        actions = _sample(proposal, candidates, generator)
        scores = score(simulator, latent, actions)
        if fixed is not None and fixed_scores is not None:
            actions, scores = torch.cat([actions, fixed], 1), torch.cat([scores, fixed_scores], 1)
        scores = torch.where(scores.isfinite() & usable[:, None], scores, -torch.inf)
        best_value, best = _keep_best(best_value, best, actions, scores)
        proposal = refit(proposal, actions, scores)
    mean = torch.where(proposal.mean.isfinite().all((-2, -1), keepdim=True), proposal.mean, best).clamp(-1, 1)
    # not the best candidate's score: the maximum over noisy promises is a promise that nothing keeps
    value = score(simulator, latent, mean[:, None])[:, 0]
    return Plan(action=mean[:, 0], mean=mean, value=torch.where(value.isfinite() & usable, value, -torch.inf))


def finite(scores: Float[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """Which candidates may count."""
    return scores > -torch.inf


def _start(fixed: Tensor | None, warm: Tensor | None, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """The first mean: the warm start where there is one, else the mean of the policy's sequences, else zeros."""
    fresh = like.new_zeros(shape) if fixed is None else fixed.mean(1)
    return fresh if warm is None else torch.where(warm.isfinite(), warm, fresh).clamp(-1, 1)


def _sample(proposal: Proposal, count: int, generator: Noise) -> Tensor:
    """Valid samples [B N H A] of the proposal, its mean first."""
    B, H, A = proposal.mean.shape
    noise = standard_normal(B, count, H, A, generator=generator, device=proposal.mean.device)
    noise[:, 0] = 0
    return _valid(torch.addcmul(proposal.mean[:, None], noise, proposal.std[:, None]))


def _valid(actions: Tensor) -> Tensor:
    return actions.nan_to_num(0.0).clamp_(-1, 1)


def _keep_best(value: Tensor, best: Tensor, actions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    top, index = scores.max(1)
    better = top > value
    winner = actions[torch.arange(len(index), device=index.device), index]
    return torch.where(better, top, value), torch.where(better[:, None, None], winner, best)
