"""Vectors as their own embeddings, for dynamics whose state is observed."""

from jaxtyping import Float
from torch import Tensor, nn


class IdentityEncoder(nn.Module):
    """The vector itself; size: its numbers, d."""

    def __init__(self, *, size: int) -> None:
        super().__init__()
        self.embed_dim = size

    def forward(self, rows: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        return rows


make = IdentityEncoder
