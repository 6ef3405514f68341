"""A Gaussian Markov prior p(s' | s, a) as a residual step, which several models' latents share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distributions import Moments
from worldmodel.limits import require_number


class GaussianMarkov(nn.Module):
    """Models whose `change` [*R D+A] -> [*R 2D] gives the step's mean and, softened and above `min_std`, its std."""

    change: nn.Module

    def __init__(self, *, min_std: float) -> None:
        require_number(min_std=min_std, least=0)
        super().__init__()
        self.min_std = min_std

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The prior's mean."""
        return self.prior(latent, action)[0]

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """A sample of the prior by reparameterisation."""
        return self.ahead(latent, action)[0]

    def ahead(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
    ) -> tuple[Float[Tensor, "*R D"], Moments]:
        """A sample of the prior, and the moments that it was drawn with."""
        mean, std = self.prior(latent, action)
        return mean + std * torch.randn_like(std), (mean, std)

    def prior(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Moments:
        """Mean and std of the next latent."""
        change, std = self.moments(self.change(torch.cat([latent, action], -1)))
        return latent + change, std

    def moments(self, statistics: Float[Tensor, "*R moments"]) -> Moments:
        """Halves of a layer's output as mean and std."""
        mean, raw = statistics.float().chunk(2, -1)
        return mean, F.softplus(raw) + self.min_std
