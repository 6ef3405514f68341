"""A scalar head with a Gaussian posterior over its last layer: Laplace's approximation, exact for squared errors.

With features held fixed the last layer is Bayesian linear regression, whose posterior is closed. MacKay, A Practical
Bayesian Framework for Backpropagation Networks (1992); Daxberger et al., Laplace Redux (2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.heads import Head
from worldmodel.nets import mlp, zero_last


class BayesianLinear(nn.Module):
    """y = wᵀ(x, 1) + ε, ε ~ N(0, noise²), w ~ N(0, 1 / precision): the posterior N(mean, noise² Λ⁻¹), row by row.

    Kept in float64, in which sums over many rows stay exact enough to be inverted.
    """

    gram: Tensor
    moment: Tensor

    def __init__(self, inputs: int, *, precision: float = 1.0, noise: float = 1.0) -> None:
        super().__init__()
        for name, number in {"precision": precision, "noise": noise}.items():
            if number <= 0:
                raise ValueError(f"heads.{name}: expected a number above 0, got {number}")
        self.precision, self.noise = precision, noise
        self.register_buffer("gram", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(inputs + 1, dtype=torch.float64))

    @torch.no_grad()
    def add(self, x: Float[Tensor, "R I"], y: Float[Tensor, "R"]) -> None:
        """Condition on rows; in any number of calls, in any order."""
        row = _with_one(x)
        self.gram += row.T @ row
        self.moment += row.T @ y.double()

    @torch.no_grad()
    def forget(self) -> None:
        """Back to the prior, as when the features have changed."""
        self.gram.zero_()
        self.moment.zero_()

    def posterior(self) -> tuple[Float[Tensor, "K"], Float[Tensor, "K K"]]:
        """Mean and covariance of the weights, the bias last."""
        ridge = self.precision * self.noise**2 * torch.eye(len(self.moment), dtype=torch.float64).to(self.gram.device)
        factor = torch.linalg.cholesky(self.gram + ridge)
        mean = torch.cholesky_solve(self.moment[:, None], factor)[:, 0]
        return mean, self.noise**2 * torch.cholesky_inverse(factor)

    def predict(self, x: Float[Tensor, "*R I"]) -> tuple[Float[Tensor, "*R"], Float[Tensor, "*R"]]:
        """Mean of y, and the variance of what is not known of it (epistemic; the noise comes on top)."""
        mean, covariance = self.posterior()
        row = _with_one(x)
        return (row @ mean).to(x.dtype), ((row @ covariance) * row).sum(-1).to(x.dtype)


class LaplaceHead(Head):
    """A `scalar` head that also says how sure it is: features learned by regression, then a posterior on top.

    Train with `loss`; then `condition` on the data once features stand. precision, noise: of the weights' prior and
    of targets, in units of `scale`.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        scale: float,
        hidden: int = 200,
        layers: int = 2,
        precision: float = 1.0,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"heads.layers: expected at least 1, got {layers}")
        self.net, self.scale = zero_last(mlp(latent_dim, hidden, layers, 1)), scale
        self.last = BayesianLinear(hidden, precision=precision, noise=noise)

    def read(self, outputs: Float[Tensor, "*R 1"]) -> Float[Tensor, "*R"]:
        """The trained network's number, in its own unit."""
        return outputs.squeeze(-1).float() * self.scale

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Squared error in units of scale²; the target is in its own unit."""
        return (self.net(latent).squeeze(-1).float() - target / self.scale).square()

    def features(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R H"]:
        """What the last layer reads."""
        return self.net[:-1](latent)  # type: ignore[no-any-return]

    @torch.no_grad()
    def condition(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> None:
        """Add rows to the posterior's data; `last.forget()` first when the features have moved."""
        self.last.add(self.features(latent).flatten(0, -2), target.flatten() / self.scale)

    def belief(self, latent: Float[Tensor, "*R D"]) -> tuple[Float[Tensor, "*R"], Float[Tensor, "*R"]]:
        """Posterior mean, and the epistemic std, both in the number's own unit."""
        mean, variance = self.last.predict(self.features(latent).float())
        return mean * self.scale, variance.clamp_min(0).sqrt() * self.scale


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1).double()


make = LaplaceHead
