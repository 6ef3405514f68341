"""A model-free learner of a policy and its action values."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.imagination import track_spread
from worldmodel.limits import require_whole
from worldmodel.nets import SlowCopy
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import frozen

Metrics = Mapping[str, Tensor]


class QEnsemble(nn.Module):
    """`members` = M heads of one shape over (z, a), at least 2, each from a start of its own."""

    def __init__(self, spec: PolicySpec, *, members: int) -> None:
        require_whole(members=members, least=2)
        super().__init__()
        self.heads = nn.ModuleList(spec.build_value(spec.latent_dim + spec.action_dim) for _ in range(members))

    def forward(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "M *R"]:
        """Every member's value, in the unit of returns."""
        both = torch.cat([latent, action], -1)
        return torch.stack([head(both) for head in self.heads])

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """The sum of the members' losses."""
        both = torch.cat([latent, action], -1)
        return torch.stack([head.loss(both, target) for head in self.heads]).sum(0)  # type: ignore[operator]


class ActorCritic(nn.Module, ABC):
    """A stochastic actor, an ensemble of Q(z, a) and its slow copy; what the actor is after is a subclass's.

    Args:
        spec: what it is built from.
        actor: options of the actor.
        members: M, networks of the ensemble.
        slow_rate: how fast the slow copy follows, per update.
    """

    spread: Tensor

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        members: int = 5,
        slow_rate: float = 0.05,
    ) -> None:
        super().__init__()
        self.actor: SquashedNormalActor = spec.build_actor(actor)  # type: ignore[assignment]
        self.q = QEnsemble(spec, members=members)
        self.slow_q = SlowCopy(self.q, rate=slow_rate)
        self.register_buffer("spread", torch.ones(()))  # of values: the actor's loss has one size in every task

    @abstractmethod
    def bonus(self, log_prob: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """What an action earns beside its reward for having had this log density; no gradient."""

    @abstractmethod
    def actor_loss(self, latent: Float[Tensor, "R D"], weight: Float[Tensor, "R"]) -> tuple[Float[Tensor, ""], Metrics]:
        """Minimised, the actor is better in these latents; Q is not moved.

        Args:
            latent: of recorded and imagined rows.
            weight: how likely each is to be met, as in the loss of Q.
        """

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights of actor and values, by the name of their learning rate."""
        return {"actor": [*self.actor.parameters()], "value": [*self.q.parameters()]}

    def act(self, latent: Float[Tensor, "*R D"]) -> tuple[Float[Tensor, "*R A"], Float[Tensor, "*R"]]:
        """A sample of the policy without gradients, and its bonus."""
        with torch.no_grad():
            action, log_prob = self.actor(latent)
            return action, self.bonus(log_prob)

    def member_values(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "M *R"]:
        """What each slow member expects to follow a latent under the policy, without gradients."""
        action, bonus = self.act(latent)
        with torch.no_grad():
            return self.slow_q.module(latent, action) + bonus

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The smaller value of two members drawn at random, which is less exploited than their mean.

        Chen et al., Randomized Ensembled Double Q-Learning (2021).
        """
        values = self.member_values(latent)
        drawn = torch.randperm(len(values), device=values.device)[:2]
        return values[drawn].amin(0)

    def follow(self) -> None:
        self.slow_q.follow(self.q)

    def _through_q(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Mean Q [R] and log π [R] of the actor's samples, with gradients to the actor alone."""
        action, log_prob = self.actor(latent)
        with frozen(self.q):
            value = self.q(latent, action).mean(0)
        track_spread(self.spread, value.detach())
        return value, log_prob


def weighted_mean(rows: Float[Tensor, "R"], weight: Float[Tensor, "R"]) -> Float[Tensor, ""]:
    """The mean of rows that count by weights from 0 to 1."""
    return (weight * rows).sum() / weight.sum().clamp_min(1)


class PolicyValue(nn.Module):
    """The mean Q of the policy's mode, which planners add after their horizon."""

    def __init__(self, q: nn.Module, actor: SquashedNormalActor) -> None:
        super().__init__()
        self.q, self.actor = q, actor

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The value of a latent."""
        return self.q(latent, self.actor.mode(latent)).mean(0)
