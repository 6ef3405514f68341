"""Values Q(z, a) of finitely many actions, all at once."""

import math
from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.action_values.action_sets import ActionSet
from worldmodel.heads.two_hot import TwoHot
from worldmodel.nets import mlp, zero_last


class DiscreteQ(nn.Module, ABC):
    """Q(z, a) = mean over groups of Q_g(z, a_g); of actions between choices, linear in `ActionSet.weights`.

    A maximum over the choices is one over all actions: what is linear in every dimension is largest at a corner.

    Args:
        actions: whose values it has.
        latent_dim: D, numbers of a latent.
        scale: what a number of order 1 stands for, in the unit of returns.
        hidden, layers: width and number of the hidden layers.
    """

    outputs = 1  # of the network, for every choice

    def __init__(
        self, *, actions: ActionSet, latent_dim: int, scale: float, hidden: int = 200, layers: int = 2
    ) -> None:
        super().__init__()
        self.actions, self.scale = actions, scale
        self.net = zero_last(mlp(latent_dim, hidden, layers, actions.groups * actions.choices * self.outputs))

    @abstractmethod
    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R groups choices"]:
        """The values of all choices, in the unit of returns."""

    @abstractmethod
    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """What to minimise so that Q(z, a) becomes the target, which is in the unit of returns."""

    def choose(self, latent: Float[Tensor, "*R D"]) -> Int64[Tensor, "*R groups"]:
        """The best choice of each group."""
        return self(latent).argmax(-1)

    def at(self, latent: Float[Tensor, "*R D"], index: Int64[Tensor, "*R groups"]) -> Float[Tensor, "*R"]:
        """The value of what is chosen."""
        return self(latent).gather(-1, index.unsqueeze(-1)).squeeze(-1).mean(-1)

    def of(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """The value of any action in [-1, 1]."""
        return (self(latent) * self.actions.weights(action)).sum(-1).mean(-1)


class HuberQ(DiscreteQ):
    """Values as numbers in units of `scale`, learned by Huber's loss, linear from one unit on."""

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R groups choices"]:
        return self.net(latent).float().unflatten(-1, (self.actions.groups, -1)) * self.scale

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        value = self.of(latent, action) / self.scale
        return F.huber_loss(value, target / self.scale, reduction="none")


class TwoHotQ(DiscreteQ):
    """Values as the means of distributions over bins; of an action between choices, that of their mixture."""

    outputs = 101  # bins

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.code = TwoHot(bins=self.outputs, reach=3.0)

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R groups choices"]:
        return self.code.decode(self._logits(latent).softmax(-1)) * self.scale

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """The cross-entropy to the target's two bins, in nats."""
        # in logarithms throughout: bins that have become improbable are those with most to learn
        weights = self.actions.weights(action).unsqueeze(-1)
        mixture = (self._logits(latent).log_softmax(-1) + weights.log()).flatten(-3, -2).logsumexp(-2)
        return -(self.code.encode(target / self.scale) * (mixture - math.log(self.actions.groups))).sum(-1)

    def _logits(self, latent: Tensor) -> Tensor:
        """Of probabilities [*R groups choices bins]."""
        shape = (self.actions.groups, self.actions.choices, -1)
        return self.net(latent).float().unflatten(-1, shape)


class BestValue(nn.Module):
    """max_a Q(z, a), which planners add after their horizon."""

    def __init__(self, q: DiscreteQ) -> None:
        super().__init__()
        self.q = q

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The value of the best action."""
        return self.q(latent).amax(-1).mean(-1)
