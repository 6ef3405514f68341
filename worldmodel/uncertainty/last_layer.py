"""The posterior over a trained network's last layer: Laplace's approximation, exact where features stand still.

Given the features, the last layer is Bayesian linear regression, with one posterior covariance for all outputs but for
their noise. MacKay, A Practical Bayesian Framework for Backpropagation Networks (1992); Daxberger et al., Laplace
Redux (2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.limits import require_number


class LastLayerPosterior(nn.Module):
    """w_d ~ N(trained w_d, σ_d² Λ⁻¹) for output d of y = W (φ, 1) + N(0, σ²), with Λ = rows · E[φφᵀ] + precision.

    Args:
        inputs: I, features of a row.
        outputs: O, numbers of y.
        precision: how many rows the prior N(0, σ_d² / precision) is worth.
        rate: features move while they are learned: E[φφᵀ] and RSS / n, `variance`, are means over rows that forget at
            this rate per call of `add`, or slower while there were few.

    Raises:
        BadValue: for a precision that is not above 0, or a rate outside [0, 1].

    The rows are those that were added, unless `count_rows` says how many different ones batches come from.
    """

    gram: Tensor
    variance: Tensor
    seen: Tensor
    rows: Tensor

    def __init__(self, inputs: int, outputs: int, *, precision: float = 1.0, rate: float = 0.01) -> None:
        super().__init__()
        require_number(precision=precision, above=0)
        require_number(rate=rate, least=0, most=1)
        self.precision, self.rate = precision, rate
        # float64: sums over many rows stay exact enough to be inverted
        self.register_buffer("gram", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(outputs, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("rows", torch.zeros((), dtype=torch.float64))  # 0 before it is told

    def count_rows(self, rows: int) -> None:
        """How many different rows the batches are drawn from."""
        self.rows.fill_(rows)

    @torch.no_grad()
    def add(self, features: Float[Tensor, "R I"], missed: Float[Tensor, "R O"], weight: Float[Tensor, "R"]) -> None:
        """Rows by their features, what the trained layer missed there, and weights; none if one is not finite."""
        row, share = with_one(features), weight.double() / weight.sum()
        gram, variance = (row * share[:, None]).T @ row, share @ missed.double().square()
        fine = gram.isfinite().all() & variance.isfinite().all()
        rate = (weight.sum() / (self.seen + weight.sum())).clamp_min(self.rate)
        for old, new in ((self.gram, gram), (self.variance, variance)):
            old.copy_(torch.where(fine, old + rate * (new - old), old))
        self.seen.copy_(torch.where(fine, self.seen + weight.sum(), self.seen))

    def factor(self) -> Float[Tensor, "feat feat"]:
        """The lower triangular factor of Λ."""
        ridge = self.precision * torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        # cholesky makes the host wait to see whether it succeeded; the ridge makes sure that it does
        return torch.linalg.cholesky_ex(self._counted() * self.gram + ridge).L

    def noise(self) -> Float[Tensor, "O"]:
        """σ² of every output, RSS / (n - γ), where γ parameters are determined by the n rows instead of by the prior.

        The trained layer has followed the rows in γ directions: RSS / n would be too sure of them.
        """
        return self._noise(self.factor())

    def draws(self, noise: Float[Tensor, "M feat O"]) -> Float[Tensor, "M feat O"]:
        """Deviations of M last layers, the biases last, from the trained one."""
        factor = self.factor()
        solved = torch.linalg.solve_triangular(factor.T.to(noise.dtype), noise, upper=True)
        return solved * self._noise(factor).sqrt().to(noise.dtype)

    def epistemic(self, features: Float[Tensor, "*R I"]) -> Float[Tensor, "*R O"]:
        """Variance of what is not known of y; `noise` comes on top."""
        row, factor = with_one(features), self.factor()
        solved = torch.linalg.solve_triangular(factor, row.flatten(0, -2).T, upper=False)
        return solved.square().sum(0).view(row.shape[:-1])[..., None] * self._noise(factor)

    def _counted(self) -> Float[Tensor, ""]:
        return torch.where(self.rows > 0, self.rows, self.seen)

    def _noise(self, factor: Float[Tensor, "feat feat"]) -> Float[Tensor, "O"]:
        size, rows = len(factor), self._counted()
        eye = torch.eye(size, dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        determined = size - self.precision * inverse.square().sum()  # γ = tr(n E[φφᵀ] Λ⁻¹), MacKay (1992)
        return torch.where(rows > 0, rows / (rows - determined).clamp_min(1), 1.0) * self.variance


def with_one(x: Float[Tensor, "*R I"]) -> Float[Tensor, "*R feat"]:
    """Rows in float64 with a one behind them, whose weight is the bias."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1).double()
