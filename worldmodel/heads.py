"""Scalars read off a latent: rewards and values."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.nets import mlp, zero_last


class ScalarHead(nn.Module):
    """A perceptron that reads one number off a latent, in units of `scale`.

    The network itself outputs numbers of order 1 (scale is the action repeat for rewards, that over 1-γ for values),
    so that one learning rate and one loss weight fit every task.
    """

    def __init__(self, *, latent_dim: int, scale: float, hidden: int = 200, layers: int = 2) -> None:
        super().__init__()
        self.net = zero_last(mlp(latent_dim, hidden, layers, 1))
        self.scale = scale

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The number in its own unit."""
        return self.normalised(latent) * self.scale

    def normalised(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The number in units of `scale`."""
        return self.net(latent).squeeze(-1).float()  # type: ignore[no-any-return]

    def squared_error(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Squared error in units of scale²; the target is in its own unit."""
        return (self.normalised(latent) - target / self.scale).square()


class SlowCopy(nn.Module):
    """An exponential moving average of a module, which gives targets that do not chase themselves."""

    def __init__(self, module: nn.Module, *, rate: float) -> None:
        super().__init__()
        self.module, self.rate = copy.deepcopy(module).requires_grad_(False), rate

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Move every weight by `rate` towards the module's."""
        slow: list[Tensor] = [*self.module.parameters()]
        fast: list[Tensor] = [*module.parameters()]
        torch._foreach_lerp_(slow, fast, self.rate)
