"""Vectors to embeddings by a perceptron."""

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.limits import require_whole
from worldmodel.nets import mlp


class VectorEncoder(nn.Module):
    """A perceptron on a normalised vector.

    Args:
        size: numbers in a vector, d.
        embed_dim: numbers in an embedding, E.
        hidden, layers: width and number of the hidden layers.
    """

    def __init__(self, *, size: int, embed_dim: int = 128, hidden: int = 128, layers: int = 2) -> None:
        require_whole(embed_dim=embed_dim)
        super().__init__()
        self.embed_dim, self.net = embed_dim, nn.Sequential(mlp(size, hidden, layers, embed_dim), nn.SiLU())

    def forward(self, rows: Float[Tensor, "B T d"]) -> Float[Tensor, "B T E"]:
        return self.net(rows)


make = VectorEncoder
