"""A scalar head with a Gaussian posterior over its last layer: Laplace's approximation, exact for squared errors."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.heads.scalar import ScalarHead
from worldmodel.last_layer import LastLayerPosterior


class LaplaceHead(ScalarHead):
    """A `scalar` head that also says how sure it is of its number; the posterior is read off while it learns.

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
        if layers < 1:
            raise ValueError(f"heads.layers: expected at least 1, got {layers}")
        if precision <= 0 or not 0 <= rate <= 1:
            raise ValueError(
                f"heads: expected a precision above 0 and a rate in [0, 1], got precision={precision}, rate={rate}"
            )
        self.posterior = LastLayerPosterior(hidden, 1, precision=precision, rate=rate)

    def count_rows(self, rows: int) -> None:
        """How many recorded rows the batches are drawn from."""
        self.posterior.count_rows(rows)

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Squared error in units of scale², which the posterior takes in too, in training only."""
        features = self.net[:-1](latent)
        missed = self.net[-1](features).squeeze(-1).float() - target / self.scale
        if self.training:
            self.posterior.add(
                features.detach().flatten(0, -2), missed.detach().reshape(-1, 1), torch.ones_like(missed).flatten()
            )
        return missed.square()

    def epistemic(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Std of what is not known of the number's mean, in its own unit."""
        variance = self.posterior.epistemic(self.net[:-1](latent)).squeeze(-1)
        return variance.sqrt().float() * self.scale

    @torch.no_grad()
    def report(self, latent: Float[Tensor, "*R D"]) -> dict[str, Float[Tensor, ""]]:
        """Both uncertainties as std in the number's own unit: `epistemic`, the mean over rows, and `aleatoric`."""
        noise = self.posterior.variance[0].sqrt().float() * self.scale
        return {"epistemic": self.epistemic(latent).mean(), "aleatoric": noise}


make = LaplaceHead
