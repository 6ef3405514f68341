"""A better local policy near the one before: a regulator whose divergence from it is bounded, by dual descent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.local_models.linear_gaussian import (
    Gaussian,
    LinearGaussianDynamics,
    LinearGaussianPolicy,
    forward_pass,
    policy_kl,
)
from worldmodel.local_models.max_ent_lqr import max_ent_lqr
from worldmodel.local_models.quadratic_cost import QuadraticCost, negative_log_prob
from worldmodel.records import choose

LOWEST, HIGHEST = 1e-8, 1e16  # of η, which has the unit of the cost per nat
TOLERANCE = 0.1  # of the bound: how near to it the divergence comes
STEPS = 24


@dataclass(frozen=True, slots=True)
class ConstrainedPolicy:
    """The new policy, its trajectories' KL from the one before in nats, and the multiplier η of the constraint."""

    policy: LinearGaussianPolicy
    kl: Float[Tensor, "B"]
    eta: Float[Tensor, "B"]


def constrain_kl(
    dynamics: LinearGaussianDynamics,
    cost: QuadraticCost,
    previous: LinearGaussianPolicy,
    start: Gaussian,
    *,
    limit: float | Float[Tensor, "B"],
    temperature: float = 0.0,
    attractors: Sequence[tuple[LinearGaussianPolicy, Float[Tensor, "B"]]] = (),
) -> ConstrainedPolicy:
    """Minimise E[cost] - temperature H(p) + Σ λ KL(p || attractor), subject to KL(p || previous) <= limit.

    With the multiplier η of the constraint this is a regulator with entropy for the cost
    (cost - Σ λ log attractor - η log previous) / (temperature + Σ λ + η): the sign with which Algorithm 30, line 4,
    draws controllers towards the global policy. KL falls with η, which is found by bisection of its logarithm.
    Levine and Abbeel, Learning Neural Network Policies with Guided Policy Search under Unknown Dynamics (2014).

    Args:
        dynamics, cost: around the trajectories of `previous`, per start.
        previous: the policy to stay near to.
        start: where trajectories begin.
        limit: nats, of whole trajectories, for each start or for all; 10% above it are tolerated.
        temperature: what a nat of entropy is worth, in units of the cost; 0 leaves the policy as noisy as the
            constraint does.
        attractors: policies to be near to besides, with what a nat of divergence costs, λ, for every start.

    Returns:
        The policy; where the cost is not convex, η is as large as convexity of the sum needs.
    """
    total = sum((negative_log_prob(q).times(weight) for q, weight in attractors), cost)
    priced = temperature + sum((weight for _, weight in attractors), torch.zeros_like(start.mean[:, 0]))
    stay = negative_log_prob(previous)

    def solve(log_eta: Tensor) -> ConstrainedPolicy:
        eta = log_eta.exp()
        scale = 1 / (priced + eta)
        policy = max_ent_lqr(dynamics, total.times(scale) + stay.times(eta * scale))
        kl = _divergence(dynamics, policy, previous, start)
        return ConstrainedPolicy(policy, kl, eta)

    low = torch.full_like(priced, LOWEST).log()
    high = torch.full_like(priced, HIGHEST).log()
    found = solve(low)  # the constraint does not bind where this is within it
    done = found.kl <= limit * (1 + TOLERANCE)
    if done.all():
        return found
    found = choose(done, found, solve(high))
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = solve(middle)
        within = tried.kl <= limit * (1 + TOLERANCE)
        found = choose(within & ~done, tried, found)
        done = done | (within & (tried.kl >= limit * (1 - TOLERANCE)))
        if done.all():
            break
        low, high = torch.where(within, low, middle), torch.where(within, middle, high)
    return found


def _divergence(
    dynamics: LinearGaussianDynamics, policy: LinearGaussianPolicy, previous: LinearGaussianPolicy, start: Gaussian
) -> Float[Tensor, "B"]:
    """KL of whole trajectories, infinite for a policy that does not exist."""
    kl = policy_kl(policy, previous, forward_pass(dynamics, policy, start)).sum(1)
    return torch.where(kl.isfinite(), kl, torch.inf)
