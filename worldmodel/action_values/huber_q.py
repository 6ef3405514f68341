"""Q values as numbers, learned by Huber's loss."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldmodel.action_values import ActionSet, DiscreteQ
from worldmodel.limits import require_whole
from worldmodel.nets import mlp, zero_last


class HuberQ(DiscreteQ):
    """A perceptron with an output for every choice, in units of `scale`.

    Args:
        actions: whose values it has.
        latent_dim: D, numbers of a latent.
        scale: what a number of order 1 stands for, in the unit of returns.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        width: error, in units of scale, from which on the loss is linear.
    """

    def __init__(
        self,
        *,
        actions: ActionSet,
        latent_dim: int,
        scale: float,
        hidden: int = 200,
        layers: int = 2,
        width: float = 1.0,
    ) -> None:
        require_whole(hidden=hidden, layers=layers)
        super().__init__()
        self.actions, self.scale, self.width = actions, scale, width
        self.net = zero_last(mlp(latent_dim, hidden, layers, actions.groups * actions.choices))

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R groups choices"]:
        """The values of all choices."""
        return self.net(latent).float().unflatten(-1, (self.actions.groups, -1)) * self.scale

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """Huber's loss of the error in units of scale."""
        value = self.of(latent, action) / self.scale
        return F.huber_loss(value, target / self.scale, reduction="none", delta=self.width)
