"""A policy learned from the Gaussian that a planner's search ended with."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import Moments, gaussian_kl
from worldmodel.interfaces import Plan

LEAST_STD = 0.1  # of targets: an action is rarely worth more precision, and 1 / std² weighs its error


@dataclass(frozen=True, slots=True)
class PlannerTarget:
    """What a planner would do now, and within which spread its search found no difference."""

    mean: Float[Tensor, "*R A"]
    std: Float[Tensor, "*R A"]

    @classmethod
    def of(cls, plan: Plan, *, least_std: float = LEAST_STD) -> "PlannerTarget":
        """The plan's first action; `least_std` bounds its std below and stands for it where a search has none."""
        std = torch.full_like(plan.action, least_std) if plan.std is None else plan.std[:, 0].clamp_min(least_std)
        return cls(plan.action, std)


def planner_kl(policy: Moments, target: PlannerTarget) -> Float[Tensor, "*R"]:
    """KL(π || planner) in action space, in nats: the policy's error weighs by how sure the planner is.

    Both are diagonal Gaussians over actions in [-1, 1] whose samples are clipped, not squashed, as in Wang et al.,
    Bootstrapped Model Predictive Control (2025).

    Args:
        policy: mean and std [*R A].
        target: of the same rows.
    """
    return gaussian_kl(policy, (target.mean.detach(), target.std.detach()))


def sampled_planner_kl(
    action: Float[Tensor, "*R A"], log_prob: Float[Tensor, "*R"], target: PlannerTarget
) -> Float[Tensor, "*R"]:
    """An unbiased estimate of KL(π || planner) for any π with reparameterised samples, squashed ones too.

    Args:
        action: drawn from π, with its gradient.
        log_prob: log π of the action.
        target: of the same rows.
    """
    mean, std = target.mean.detach(), target.std.detach()
    planner = -0.5 * ((action - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
    return log_prob - planner.sum(-1)
