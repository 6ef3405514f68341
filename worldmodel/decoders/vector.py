"""Latents to vectors by a perceptron."""

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.nets import mlp


class VectorDecoder(nn.Module):
    """The mean of a vector given a latent.

    Args:
        latent_dim: numbers in a latent, D.
        size: numbers in a vector, d.
        hidden, layers: width and number of the hidden layers.
    """

    def __init__(self, *, latent_dim: int, size: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.net = mlp(latent_dim, hidden, layers, size)

    def forward(self, latent: Float[Tensor, "R D"]) -> Float[Tensor, "R d"]:
        """The mean of p(o | s), as normalised vectors."""
        return self.net(latent)


make = VectorDecoder
