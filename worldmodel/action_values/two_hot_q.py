"""Q values as distributions over bins, learned by the cross-entropy to two of them."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.action_values import ActionSet, DiscreteQ
from worldmodel.heads.two_hot import TwoHot
from worldmodel.limits import require_whole
from worldmodel.nets import mlp, zero_last


class TwoHotQ(DiscreteQ):
    """A perceptron with a softmax over bins for every choice; what lies between choices is their mixture.

    Args:
        actions: whose values it has.
        latent_dim: D, numbers of a latent.
        scale: what a number of order 1 stands for, in the unit of returns.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        bins, reach: as in `heads.two_hot`.
    """

    def __init__(
        self,
        *,
        actions: ActionSet,
        latent_dim: int,
        scale: float,
        hidden: int = 200,
        layers: int = 2,
        bins: int = 101,
        reach: float = 3.0,
    ) -> None:
        require_whole(hidden=hidden, layers=layers)
        super().__init__()
        self.actions, self.scale = actions, scale
        self.code = TwoHot(bins=bins, reach=reach)
        self.net = zero_last(mlp(latent_dim, hidden, layers, actions.groups * actions.choices * bins))

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
