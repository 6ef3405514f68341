"""A scalar as a distribution over bins: targets of any size train with gradients of one size.

Bins are equally spaced after symlog(x) = sign(x) log(1 + |x|). A target is shared by the two bins around it in their
own unit, so that the mean over bins is unbiased, also of random targets. Hafner et al., Mastering Diverse Domains
through World Models (2023).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.errors import BadValue
from worldmodel.heads.head import Head
from worldmodel.limits import require_number, require_whole
from worldmodel.nets import mlp, zero_last


class TwoHot(nn.Module):
    """Numbers in [-symexp(reach), symexp(reach)] as weights of an odd number of bins, and back."""

    bins: Tensor

    def __init__(self, *, bins: int, reach: float) -> None:
        super().__init__()
        if bins < 3 or bins % 2 == 0:
            raise BadValue(f"bins: expected an odd number of at least 3, got {bins}")
        require_number(reach=reach, above=0, most=50)
        # one half mirrored, so that the bins cancel in pairs to the last bit
        half = torch.linspace(0, reach, bins // 2 + 1, dtype=torch.float64).expm1()
        self.register_buffer("bins", torch.cat([-half.flip(0), half[1:]]).float(), persistent=False)

    def encode(self, x: Float[Tensor, "*R"]) -> Float[Tensor, "*R bins"]:
        """Weights of the bins, at most two of them not zero; numbers out of reach go to the last bin."""
        bins = self.bins
        x = x.to(bins.dtype).clamp(bins[0], bins[-1])
        below = (torch.searchsorted(bins, x.contiguous(), right=True) - 1).clamp(0, len(bins) - 2)
        share = ((x - bins[below]) / (bins[below + 1] - bins[below])).unsqueeze(-1)
        weights = torch.zeros(*x.shape, len(bins), dtype=bins.dtype, device=bins.device)
        return weights.scatter(-1, below.unsqueeze(-1), 1 - share).scatter(-1, below.unsqueeze(-1) + 1, share)

    def decode(self, weights: Float[Tensor, "*R bins"]) -> Float[Tensor, "*R"]:
        """The mean over bins; exactly 0 for weights that are symmetric about it."""
        middle = len(self.bins) // 2
        positive, negative = weights[..., middle + 1 :], weights[..., :middle].flip(-1)
        # products are summed one by one: a matrix product would round symmetric weights to almost 0
        return ((positive - negative) * self.bins[middle + 1 :]).sum(-1)


class TwoHotHead(Head):
    """A perceptron whose softmax over the bins has the number as its mean, in units of `scale`.

    Args:
        latent_dim, scale, hidden, layers: as in `Head`.
        bins: their number.
        reach: the last bin is symexp(reach) times `scale`. The loss is a cross-entropy in nats, log(bins) at the
            start: `agent.weights` must suit it.
    """

    def __init__(
        self, *, latent_dim: int, scale: float, hidden: int = 200, layers: int = 2, bins: int = 101, reach: float = 3.0
    ) -> None:
        require_whole(bins=bins)
        super().__init__()
        self.code, self.scale = TwoHot(bins=bins, reach=reach), scale
        self.net = zero_last(mlp(latent_dim, hidden, layers, bins))

    def read(self, outputs: Float[Tensor, "*R bins"]) -> Float[Tensor, "*R"]:
        """The mean over bins, in its own unit; 0 before any training."""
        return self.code.decode(outputs.float().softmax(-1)) * self.scale

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """The cross-entropy to the target's two bins, in nats."""
        log_share = F.log_softmax(self.net(latent).float(), -1)
        return -(self.code.encode(target / self.scale) * log_share).sum(-1)


make = TwoHotHead
