"""Targets of all depths, weighted by how sure an ensemble is of each.

Buckman et al., Sample-Efficient Reinforcement Learning with Stochastic Ensemble Value Expansion (2018), equation 6.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.actor_critics.actor_critic import ActorCritic
from worldmodel.latent_rows import Transitions
from worldmodel.limits import require_whole
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.value_targets.value_target import ValueTarget, expansions


class Steve(ValueTarget):
    """Σ_k w_k y_k over 0 to `depth` imagined decisions, w_k inverse to the variance of y_k.

    The variance is over members of Q and over `rollouts` of the policy in the model; dynamics that are an ensemble
    draw another member in each.

    Args:
        depth: the most decisions imagined after a row.
        rollouts: for every row.
    """

    def __init__(self, *, depth: int = 2, rollouts: int = 2) -> None:
        require_whole(depth=depth, rollouts=rollouts)
        self.depth, self.rollouts = depth, rollouts

    @torch.no_grad()
    def __call__(self, learner: ActorCritic, simulator: LatentSimulator, rows: Transitions) -> Float[Tensor, "R"]:
        """The weighted mean of the members' mean targets."""
        drawn = []
        for _ in range(self.rollouts):
            earned, weight, latent = expansions(learner, simulator, rows, depth=self.depth)
            drawn.append(earned + weight * learner.member_values(latent))  # [M depths R]
        targets = torch.cat(drawn)
        shares = inverse_variance_weights(targets.var(0, correction=0))
        return (shares * targets.mean(0)).sum(0)


def inverse_variance_weights(variance: Float[Tensor, "depths R"]) -> Float[Tensor, "depths R"]:
    """Weights with sum 1 over the depths, inverse to the variance; equal ones where it is equal, also where it is 0."""
    least = variance.amin(0).clamp_min(torch.finfo(variance.dtype).tiny)
    inverse = least / variance.clamp_min(torch.finfo(variance.dtype).tiny)  # at most 1: nothing overflows
    return inverse / inverse.sum(0)


make = Steve
