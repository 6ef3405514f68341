"""The actor takes what Q rates highest, with a little entropy; Hansen et al., TD-MPC2 (2024), equation 4."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.actor_critics.actor_critic import ActorCritic, Metrics, weighted_mean
from worldmodel.limits import require_number


class MaxQ(ActorCritic):
    """Maximises the mean Q; its entropy is no part of what it earns.

    Args:
        entropy: weight of the policy's entropy against values of order 1.
        options: those of `ActorCritic`.
    """

    options_go_to = ActorCritic

    def __init__(self, *, entropy: float = 1e-3, **options: Any) -> None:
        require_number(entropy=entropy, least=0)
        super().__init__(**options)
        self.entropy = entropy

    def bonus(self, log_prob: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        return torch.zeros_like(log_prob)

    def actor_loss(self, latent: Float[Tensor, "R D"], weight: Float[Tensor, "R"]) -> tuple[Float[Tensor, ""], Metrics]:
        """-Q in units of its spread, and the entropy."""
        value, log_prob = self._through_q(latent)
        loss = weighted_mean(self.entropy * log_prob - value / self.spread, weight)
        return loss, {"policy/entropy": -weighted_mean(log_prob.detach(), weight)}


make = MaxQ
