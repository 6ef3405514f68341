"""Q values as distributions over bins, learned by the cross-entropy to two of them."""

import math

from jaxtyping import Float
from torch import Tensor

from worldmodel.action_values.action_sets import ActionSet
from worldmodel.action_values.discrete_q import DiscreteQ
from worldmodel.heads.two_hot import TwoHot


class TwoHotQ(DiscreteQ):
    """A perceptron with a softmax over bins for every choice; what lies between choices is their mixture."""

    outputs = 101  # bins

    def __init__(
        self, *, actions: ActionSet, latent_dim: int, scale: float, hidden: int = 200, layers: int = 2
    ) -> None:
        super().__init__(actions=actions, latent_dim=latent_dim, scale=scale, hidden=hidden, layers=layers)
        self.code = TwoHot(bins=self.outputs, reach=3.0)

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R groups choices"]:
        """The means over bins."""
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
