"""A scalar as a plain regression."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.heads.head import Head
from worldmodel.nets import mlp, zero_last


class ScalarHead(Head):
    """A perceptron that reads one number off a latent, in units of `scale`.

    The network itself outputs numbers of order 1, so that one learning rate and one loss weight fit every task.

    Args:
        latent_dim, scale, hidden, layers: as in `Head`.
    """

    def __init__(self, *, latent_dim: int, scale: float, hidden: int = 200, layers: int = 2) -> None:
        super().__init__()
        self.net = zero_last(mlp(latent_dim, hidden, layers, 1))
        self.scale = scale

    def read(self, outputs: Float[Tensor, "*R 1"]) -> Float[Tensor, "*R"]:
        return outputs.squeeze(-1).float() * self.scale

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Squared error in units of scale²; the target is in its own unit."""
        return (self.net(latent).squeeze(-1).float() - target / self.scale).square()


make = ScalarHead
