"""Linear layers with a Gaussian posterior over every weight.

Blundell et al., Weight Uncertainty in Neural Networks (2015). Outputs are sampled instead of weights, after
Kingma et al., Variational Dropout and the Local Reparameterization Trick (2015).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distributions import gaussian_kl


class VariationalLinear(nn.Module):
    """w ~ N(mean, softplus(raw)²) for every weight and bias, with the prior N(0, prior_std²).

    The loss of N rows is Σ -log p(y | x, w) + kl(); divide kl by N for the loss of one row.
    """

    def __init__(self, inputs: int, outputs: int, *, prior_std: float = 1.0) -> None:
        super().__init__()
        if prior_std <= 0:
            raise ValueError(f"prior_std: expected a number above 0, got {prior_std}")
        self.prior_std = prior_std
        start = nn.Linear(inputs, outputs)
        self.mean = nn.Parameter(torch.cat([start.weight, start.bias[:, None]], 1).detach().clone())
        # small at first, so that the means learn as those of a plain layer
        self.raw = nn.Parameter(torch.full_like(self.mean, -5.0))

    @property
    def std(self) -> Float[Tensor, "O I+1"]:
        """Of every weight, the biases last."""
        return F.softplus(self.raw)

    def forward(self, x: Float[Tensor, "*R I"]) -> Float[Tensor, "*R O"]:
        """Outputs under weights that are drawn anew for every row."""
        mean, std = self.moments(x)
        return mean + std * torch.randn_like(mean)

    def moments(self, x: Float[Tensor, "*R I"]) -> tuple[Float[Tensor, "*R O"], Float[Tensor, "*R O"]]:
        """Mean and std of the outputs over the weights."""
        row = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        return F.linear(row, self.mean), F.linear(row.square(), self.std.square()).sqrt()

    def kl(self) -> Float[Tensor, ""]:
        """KL(posterior || prior) over all weights, in nats."""
        prior = torch.zeros_like(self.mean), torch.full_like(self.mean, self.prior_std)
        return gaussian_kl((self.mean, self.std), prior).sum()
