"""A policy π(a | s) over latents."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise


@runtime_checkable
class Policy(Protocol):
    """A distribution over actions in [-1, 1] for every latent; what it returns is finite, whatever the latent."""

    def sample(self, latent: Float[Tensor, "*R D"], *, generator: Noise) -> Float[Tensor, "*R A"]:
        """An action drawn with an explicit generator."""

    def mode(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R A"]:
        """The most probable action."""
