"""Linear layers with a Gaussian posterior over every weight, and networks of them.

Blundell et al., Weight Uncertainty in Neural Networks (2015). Outputs are sampled instead of weights, after
Kingma et al., Variational Dropout and the Local Reparameterization Trick (2015).
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distributions import gaussian_kl
from worldmodel.limits import require_number


class VariationalLinear(nn.Module):
    """w ~ N(mean, softplus(raw)²) for every weight and bias, with the prior N(0, prior_std²).

    The loss of N rows is Σ -log p(y | x, w) + kl(); divide kl by N for the loss of one row.
    """

    def __init__(self, inputs: int, outputs: int, *, prior_std: float = 1.0) -> None:
        super().__init__()
        require_number(prior_std=prior_std, above=0)
        self.prior_std = prior_std
        start = nn.Linear(inputs, outputs)
        self.mean = nn.Parameter(torch.cat([start.weight, start.bias[:, None]], 1).detach().clone())
        # small at first, so that the means learn as those of a plain layer
        self.raw = nn.Parameter(torch.full_like(self.mean, -5.0))

    @property
    def std(self) -> Float[Tensor, "O feat"]:
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

    def drawn(self, x: Float[Tensor, "M R I"], noise: Float[Tensor, "M feat O"]) -> Float[Tensor, "M R O"]:
        """Outputs under M weights, mean + std · noise, on rows of their own each."""
        weight = self.mean.T + self.std.T * noise
        return torch.baddbmm(weight[:, -1:], x, weight[:, :-1])

    def plain(self) -> nn.Linear:
        """A layer with the mean weights: these themselves, not copies."""
        layer: nn.Module = nn.Linear(self.mean.shape[1] - 1, self.mean.shape[0], device="meta")
        del layer.weight, layer.bias
        layer.weight, layer.bias = self.mean[:, :-1], self.mean[:, -1]
        assert isinstance(layer, nn.Linear)
        return layer

    def kl(self) -> Float[Tensor, ""]:
        """KL(posterior || prior) over all weights, in nats."""
        prior = torch.zeros_like(self.mean), torch.full_like(self.mean, self.prior_std)
        return gaussian_kl((self.mean, self.std), prior).sum()


class VariationalNet(nn.Module):
    """A network with every linear layer variational, its weights those of `net` in the mean; other layers as they are.

    Outputs are sampled row by row in training, else those of the mean weights. Iterating gives plain layers of the mean
    weights.

    Args:
        prior_scale: of the weights' std over the root of a layer's inputs.
    """

    def __init__(self, net: nn.Sequential, *, prior_scale: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_variational(layer, prior_scale) for layer in net)

    def __iter__(self) -> Iterator[nn.Module]:
        return (layer.plain() if isinstance(layer, VariationalLinear) else layer for layer in self.layers)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Inputs and one for the bias, and outputs, of every variational layer."""
        return [(layer.mean.shape[1], layer.mean.shape[0]) for layer in self._variational]

    def forward(self, x: Float[Tensor, "*R I"]) -> Float[Tensor, "*R O"]:
        """Outputs under weights drawn anew for every row in training, under the mean weights else."""
        for layer in self.layers:
            x = layer(x) if self.training or not isinstance(layer, VariationalLinear) else layer.moments(x)[0]
        return x

    def drawn(self, x: Float[Tensor, "M R I"], noise: Sequence[Float[Tensor, "M _ _"]]) -> Float[Tensor, "M R O"]:
        """Outputs under M draws of all weights, by noise for each of `sizes`, on rows of their own each."""
        source = iter(noise)
        for layer in self.layers:
            x = layer.drawn(x, next(source)) if isinstance(layer, VariationalLinear) else layer(x)
        return x

    def kl(self) -> Float[Tensor, ""]:
        """KL(posterior || prior) over all weights, in nats."""
        return torch.stack([layer.kl() for layer in self._variational]).sum()

    @property
    def _variational(self) -> list[VariationalLinear]:
        return [layer for layer in self.layers if isinstance(layer, VariationalLinear)]


def _variational(layer: nn.Module, prior_scale: float) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return layer
    made = VariationalLinear(layer.in_features, layer.out_features, prior_std=prior_scale * layer.in_features**-0.5)
    with torch.no_grad():
        made.mean[:, :-1] = layer.weight
        made.mean[:, -1] = 0.0 if layer.bias is None else layer.bias
    return made
