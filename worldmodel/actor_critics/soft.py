"""The actor earns its entropy too, at a temperature that keeps the entropy where it should be.

Haarnoja et al., Soft Actor-Critic Algorithms and Applications (2018), equations 3, 9 and 18.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.actor_critics.actor_critic import ActorCritic, Metrics, weighted_mean
from worldmodel.limits import require_number
from worldmodel.policy_spec import PolicySpec


class Soft(ActorCritic):
    """Maximises Q - α log π, and values hold the entropy of what follows.

    Args:
        spec: what it is built from.
        temperature: α at first, in units of a decision's reward.
        target_entropy: of the policy, in nats; None for minus the number of action dimensions.
        options: those of `ActorCritic`.
    """

    options_go_to = ActorCritic

    def __init__(
        self, *, spec: PolicySpec, temperature: float = 0.02, target_entropy: float | None = None, **options: Any
    ) -> None:
        require_number(temperature=temperature, above=0)
        super().__init__(spec=spec, **options)
        self.target_entropy = -float(spec.action_dim) if target_entropy is None else target_entropy
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def bonus(self, log_prob: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        return -self.log_temperature.detach().exp() * log_prob

    def actor_loss(self, latent: Float[Tensor, "R D"], weight: Float[Tensor, "R"]) -> tuple[Float[Tensor, ""], Metrics]:
        """α log π - Q in units of Q's spread, and the temperature's own loss."""
        value, log_prob = self._through_q(latent)
        temperature = self.log_temperature.exp()
        actor = weighted_mean(temperature.detach() * log_prob - value, weight) / self.spread
        entropy = -weighted_mean(log_prob.detach(), weight)
        own = self.log_temperature * (entropy - self.target_entropy)
        metrics = {"policy/entropy": entropy, "policy/temperature": temperature.detach()}
        return actor + own, metrics

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights of actor and values; the temperature is the actor's."""
        groups = super().groups()
        groups["actor"].append(self.log_temperature)
        return groups


make = Soft
