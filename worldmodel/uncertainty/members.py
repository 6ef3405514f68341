"""Several networks of one shape as one: a product a layer, whatever their number."""

import math
from itertools import accumulate

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.limits import require_whole
from worldmodel.transfer import resident

# P(k <= 0), P(k <= 1), ... of a Poisson variable of rate 1: how often a bootstrap draws a sample of a large set
_POISSON = tuple(total / math.e for total in accumulate(1 / math.factorial(k) for k in range(9)))
_MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # odd, with no pattern in their bits


class MemberLinear(nn.Module):
    """A linear layer of M members, each with weights and a start of its own."""

    def __init__(self, members: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5  # nn.Linear's
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Float[Tensor, "M R I"]) -> Float[Tensor, "M R O"]:
        """Every member on rows of its own."""
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class MemberNorm(nn.Module):
    """LayerNorm with a gain and a shift for each member."""

    def __init__(self, members: int, size: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(members, 1, size)), nn.Parameter(torch.zeros(members, 1, size))

    def forward(self, x: Float[Tensor, "M R I"]) -> Float[Tensor, "M R I"]:
        """Zero mean and unit std over the last axis, then gain and shift."""
        return torch.addcmul(self.shift, F.layer_norm(x, x.shape[-1:]), self.gain)


def member_mlp(members: int, inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """`nets.mlp` for M members: [M R inputs] to [M R outputs]."""
    require_whole(hidden=hidden, layers=layers)
    blocks: list[nn.Module] = []
    for size in [inputs] + [hidden] * (layers - 1):
        blocks += [MemberLinear(members, size, hidden, bias=not blocks), MemberNorm(members, hidden), nn.SiLU()]
    return nn.Sequential(*blocks, MemberLinear(members, hidden, outputs))


def member_noise(members: int, *size: int, seed: int = 0) -> Float[Tensor, "M *size"]:
    """Fixed standard normal noise for M draws from a posterior, whose mean over the members is 0, as if balanced.

    Its variance over them is 1 in the mean, so that the spread of few members is that of many; one member has none.
    """
    noise = torch.randn(members, *size, generator=torch.Generator().manual_seed(seed))
    return (noise - noise.mean(0)) * math.sqrt(members / max(members - 1, 1))


def disagreement(mean: Float[Tensor, "M *R D"], noisy_dims: int) -> Float[Tensor, "*R"]:
    """Variance over members of their means, averaged over the last `noisy_dims` dimensions.

    The others are the same for all members: they would only dilute it.
    """
    return mean[..., -noisy_dims:].var(0, correction=0).mean(-1)


def bootstrap_weights(name: Int64[Tensor, "*R name"], members: int) -> Float[Tensor, "M *R"]:
    """How often each member's bootstrap drew a row: Poisson(1), a function of the row's name alone.

    A row keeps its weights in every batch and process, and nothing is stored.

    Args:
        name: whole numbers that no other row has: what it holds is none, for rows may hold the same.
        members: M, how many bootstraps.
    """
    index = torch.arange(1, members + 1, device=name.device).view(-1, *[1] * (name.ndim - 1))
    state = index * _MIX[0]
    for column in name.unbind(-1):
        state = (state ^ column) * _MIX[1]
        state = state ^ ((state >> 29) & 0x7FFFFFFFF)  # integers are signed: without the mask the sign would spread
    state = state * _MIX[2]
    uniform = ((state >> 40) & 0xFFFFFF).double() / 2**24
    return (uniform.unsqueeze(-1) > resident(_POISSON, name.device, uniform.dtype)).sum(-1).float()
