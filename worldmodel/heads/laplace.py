"""A scalar head with a Gaussian posterior over its last layer: Laplace's approximation, exact for squared errors."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.heads.scalar import ScalarHead
from worldmodel.uncertainty.last_layer import LastLayerPosterior


class LaplaceHead(ScalarHead):
    """A `scalar` head that also says how sure it is of its number, from what `condition` was given.

    Args:
        precision, rate: as in `LastLayerPosterior`.
        options: those of `ScalarHead`.
    """

    options_go_to = ScalarHead

    def __init__(self, *, precision: float = 1.0, rate: float = 0.01, **options: Any) -> None:
        super().__init__(**options)
        last: Any = self.net[-1]
        self.posterior = LastLayerPosterior(last.in_features, 1, precision=precision, rate=rate)

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
