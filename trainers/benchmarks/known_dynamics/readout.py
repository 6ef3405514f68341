"""Rewards that are known, and what a Simulator with one, but no learned heads, says of values and policies."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.heads.head import Head
from worldmodel.interfaces import Noise


class OwnReward:
    """No value and no policy: planners look as far as their horizon, and sample on their own."""

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Nothing is known of what follows."""
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """There is no policy."""
        return None


class KnownReward(Head):
    """A function of latents where a learned reward would be."""

    def __init__(self, reward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self._reward = nn.Sequential(), reward

    def read(self, outputs: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Of latents."""
        return self._reward(outputs)

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Zeros: nothing is learned."""
        return torch.zeros_like(target)
