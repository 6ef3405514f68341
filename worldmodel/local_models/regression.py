"""Bayesian linear regression with several outputs: the conjugate posterior over coefficients and noise.

Matrix-normal inverse-Wishart, W | Σ ~ MN(M, Σ, Λ⁻¹), Σ ~ IW(Ψ, ν). Murphy, Machine Learning: A Probabilistic
Perspective (2012), section 4.6.3; Levine, Wagener and Abbeel (2015) for its use with few samples of each step.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.planners.lqr import matvec


@dataclass(frozen=True, slots=True)
class LinearRegression:
    """What is believed of y = W φ + noise, any number of regressions at once.

    Args:
        mean: M, of the coefficients W.
        precision: Λ, of the coefficients of every output, in units of its noise.
        scale: Ψ, ν times about the noise's covariance.
        degrees: ν, about how many samples the noise is known from.
    """

    mean: Float[Tensor, "*R O I"]
    precision: Float[Tensor, "*R I I"]
    scale: Float[Tensor, "*R O O"]
    degrees: Float[Tensor, "*R"]

    @classmethod
    def prior(
        cls,
        mean: Float[Tensor, "*R O I"],
        moment: Float[Tensor, "*R I I"],
        noise: Float[Tensor, "*R O O"],
        *,
        strength: float,
    ) -> "LinearRegression":
        """A prior that weighs as much as `strength` samples.

        Args:
            mean: what the coefficients are thought to be.
            moment: E φφᵀ of the inputs that it is known from.
            noise: covariance of the outputs' noise.
            strength: n0, in samples.
        """
        degrees = torch.full(mean.shape[:-2], strength + mean.shape[-2] + 1).to(mean)
        return cls(mean, strength * moment, strength * noise, degrees)

    def posterior(self, inputs: Float[Tensor, "*R N I"], outputs: Float[Tensor, "*R N O"]) -> "LinearRegression":
        """The belief after N more samples of every regression."""
        precision = self.precision + inputs.mT @ inputs
        moment = self.mean @ self.precision + outputs.mT @ inputs
        mean = torch.linalg.solve(precision, moment.mT).mT
        # as a sum of squares: the textbook's difference of large terms can lose its sign
        residual, change = outputs - inputs @ mean.mT, mean - self.mean
        scale = self.scale + residual.mT @ residual + change @ self.precision @ change.mT
        return LinearRegression(mean, precision, (scale + scale.mT) / 2, self.degrees + inputs.shape[-2])

    def noise(self) -> Float[Tensor, "*R O O"]:
        """The mean of the noise's covariance, Ψ / (ν - O - 1)."""
        return self.scale / (self.degrees - self.mean.shape[-2] - 1)[..., None, None]


def regress_around(
    centre: Float[Tensor, "*R I"],
    slope: Float[Tensor, "*R O I"],
    value: Float[Tensor, "*R O"],
    noise: Float[Tensor, "*R O O"],
    *,
    inputs: Float[Tensor, "*R N I"],
    outputs: Float[Tensor, "*R N O"],
    spread: Float[Tensor, "I"],
    strength: float,
) -> tuple[Float[Tensor, "*R O I"], Float[Tensor, "*R O"], Float[Tensor, "*R O O"]]:
    """Affine functions F x + f of samples, in float64, a known one being the prior.

    Args:
        centre: where the known function is given.
        slope, value: its derivative and value there.
        noise: covariance of its outputs.
        inputs, outputs: N samples of each.
        spread: stds of the inputs within which the slope may be trusted.
        strength: how many samples the known function weighs.

    Returns:
        F, f and the mean of the noise's covariance.
    """
    away = inputs - centre[..., None, :]
    moment = torch.diag(torch.cat([spread.double().square(), spread.new_ones(1).double()]))
    moment = moment.expand(*slope.shape[:-2], *moment.shape)
    known = LinearRegression.prior(torch.cat([slope, value[..., None]], -1), moment, noise, strength=strength)
    belief = known.posterior(torch.cat([away, torch.ones_like(away[..., :1])], -1), outputs)
    F, offset = belief.mean[..., :-1], belief.mean[..., -1]
    return F, offset - matvec(F, centre), belief.noise()
