"""A scalar that is read off a latent."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """What rewards and values are read with: a perceptron `net`, whose outputs `read` makes a number of.

    `make` takes latent_dim, D; scale, what a number of order 1 stands for, in its own unit: the action repeat for
    rewards, that over 1-γ for values; hidden and layers, width and number of the hidden layers.
    """

    net: nn.Sequential

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The number in its own unit."""
        return self.read(self.net(latent))

    @abstractmethod
    def read(self, outputs: Float[Tensor, "*R O"]) -> Float[Tensor, "*R"]:
        """The number that the perceptron's outputs stand for, in its own unit."""

    @abstractmethod
    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """What to minimise so that the number becomes the target, which is in its own unit."""
