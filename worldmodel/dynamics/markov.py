"""A Gaussian Markov prior p(s' | s, a) as a residual step, which several models' latents share."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.distributions import Moments, read_moments
from worldmodel.limits import require_number


class GaussianMarkov(nn.Module):
    """Models whose `change` [*R D+A] -> [*R 2D] gives the step's mean and, softened and above `min_std`, its std."""

    # the ELBO of frames and rewards with a tenth of the noise variance
    loss_weights: Mapping[str, float] = MappingProxyType({"kl": 0.1})
    change: nn.Module

    def __init__(self, *, min_std: float) -> None:
        require_number(min_std=min_std, least=0)
        super().__init__()
        self.min_std = min_std

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The prior's mean."""
        return self.prior(latent, action)[0]

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        return self.ahead(latent, action)[0]

    def ahead(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
    ) -> tuple[Float[Tensor, "*R D"], Moments]:
        mean, std = self.prior(latent, action)
        return mean + std * torch.randn_like(std), (mean, std)

    def prior(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Moments:
        """Mean and std of the next latent."""
        change, std = self.moments(self.change(torch.cat([latent, action], -1)))
        return latent + change, std

    def moments(self, statistics: Float[Tensor, "*R moments"]) -> Moments:
        """Halves of a layer's output as mean and std."""
        return read_moments(statistics, self.min_std)
