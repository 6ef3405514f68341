"""A scalar head with a Gaussian posterior over its last layer: Laplace's approximation, exact for squared errors."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.heads.scalar import ScalarHead
from worldmodel.uncertainty.last_layer import LastLayerPosterior


class LaplaceHead(ScalarHead):
    """A `scalar` head that also says how sure it is of its number, from what `condition` was given.

    Args:
        latent_dim: D, numbers of a latent.
        scale: what a number of order 1 stands for, in its own unit.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        precision, rate: as in `LastLayerPosterior`.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        scale: float,
        hidden: int = 200,
        layers: int = 2,
        precision: float = 1.0,
        rate: float = 0.01,
    ) -> None:
        super().__init__(latent_dim=latent_dim, scale=scale, hidden=hidden, layers=layers)
        self.posterior = LastLayerPosterior(hidden, 1, precision=precision, rate=rate)

    def count_rows(self, rows: int) -> None:
        self.posterior.count_rows(rows)

    @torch.no_grad()
    def condition(
        self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"], weight: Float[Tensor, "*R"]
    ) -> None:
        features = self.net[:-1](latent)
        missed = self.read(self.net[-1](features)) / self.scale - target / self.scale
        self.posterior.add(features.flatten(0, -2), missed.reshape(-1, 1), weight.flatten())

    def epistemic(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        variance = self.posterior.epistemic(self.net[:-1](latent)).squeeze(-1)
        return variance.sqrt().float() * self.scale

    @torch.no_grad()
    def report(self, latent: Float[Tensor, "*R D"]) -> dict[str, Float[Tensor, ""]]:
        """Both uncertainties as std in the number's own unit: `epistemic`, the mean over rows, and `aleatoric`."""
        noise = self.posterior.noise()[0].sqrt().float() * self.scale
        return {"epistemic": self.epistemic(latent).mean(), "aleatoric": noise}


make = LaplaceHead
