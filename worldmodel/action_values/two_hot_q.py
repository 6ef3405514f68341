"""Q values as distributions over bins, learned by the cross-entropy to two of them."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.action_values import ActionSet, DiscreteQ
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
        return self.code.decode(self._shares(latent)) * self.scale

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """The cross-entropy to the target's two bins, in nats."""
        mixture = (self._shares(latent) * self.actions.weights(action).unsqueeze(-1)).sum(-2).mean(-2)
        return -(self.code.encode(target / self.scale) * mixture.clamp_min(1e-8).log()).sum(-1)

    def _shares(self, latent: Tensor) -> Tensor:
        """Probabilities [*R groups choices bins]."""
        shape = (self.actions.groups, self.actions.choices, -1)
        return self.net(latent).float().unflatten(-1, shape).softmax(-1)
