"""A policy learned from a planner's candidates, weighted by their returns: no form of their distribution is assumed."""

import math

from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import Moments


def elite_weights(scores: Float[Tensor, "*R N"], temperature: float) -> Float[Tensor, "*R N"]:
    """w_j = softmax(J_j / T) of the returns J; one that is not finite weighs 0, and all of them where none is."""
    low = scores.new_tensor(-math.inf)
    known = scores.where(scores.isfinite(), low)
    return ((known - known.amax(-1, keepdim=True)) / temperature).softmax(-1).nan_to_num(0.0)


def elites_loss(
    policy: Moments, actions: Float[Tensor, "*R N A"], scores: Float[Tensor, "*R N"], *, temperature: float
) -> Float[Tensor, "*R"]:
    """-Σ_j w_j log π(a_j | s): as T vanishes the best candidate is imitated, as T grows all alike.

    The optimal Gaussian has the candidates' weighted mean and std; advantage-weighted regression has this form.

    Args:
        policy: mean and std [*R A] of a diagonal Gaussian over actions.
        actions: candidates' first actions.
        scores: their returns J.
        temperature: T, in the unit of returns.
    """
    mean, std = (moment.unsqueeze(-2) for moment in policy)
    log_density = -0.5 * ((actions - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
    return -(elite_weights(scores.detach(), temperature) * log_density.sum(-1)).sum(-1)
