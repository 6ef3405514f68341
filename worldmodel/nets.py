"""Small building blocks that every network shares."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.limits import require_whole


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """A perceptron of `layers` blocks (linear, LayerNorm, SiLU) and a linear output layer.

    The first layer's bias is a yardstick: without one the norm would leave of an input its direction alone. Later
    layers before a norm have none: their inputs have one size, and the norm's own shift does that work.

    Raises BadValue for `hidden` or `layers` below 1, which are options of nearly every part.
    """
    require_whole(hidden=hidden, layers=layers)
    blocks: list[nn.Module] = []
    for size in [inputs] + [hidden] * (layers - 1):
        blocks += [nn.Linear(size, hidden, bias=not blocks), nn.LayerNorm(hidden), nn.SiLU()]
    return nn.Sequential(*blocks, nn.Linear(hidden, outputs))


def as_product(x: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
    """`x` in the precision that products have under autocast, as it is elsewhere."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def zero_last(net: nn.Sequential) -> nn.Sequential:
    """Zero the output layer, so that a head starts at 0 instead of at a random guess that a planner would chase."""
    last = net[-1]
    assert isinstance(last, nn.Linear), last
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return net


class NormGRUCell(nn.Module):
    """A GRU cell with one product and one LayerNorm for all gates, for any leading axes.

    The update gate's bias of -1 makes a fresh cell remember. Hafner et al., Mastering Atari with Discrete World
    Models (2021), appendix.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 3 * hidden, bias=False)
        self.norm = nn.LayerNorm(3 * hidden)

    def forward(self, x: Float[Tensor, "*R I"], h: Float[Tensor, "*R hidden"]) -> Float[Tensor, "*R hidden"]:
        """The next hidden state."""
        return self.update(self.gates(torch.cat([x, h], -1)), h)

    def update(self, gates: Float[Tensor, "*R gates"], h: Float[Tensor, "*R hidden"]) -> Float[Tensor, "*R hidden"]:
        """The next hidden state from the gates' sums before the norm."""
        # autocast hands out other precisions on the CPU than on a GPU; the state keeps its own
        reset, candidate, update = self.norm(gates).to(h.dtype).chunk(3, -1)
        return self.mix(reset, candidate, update - 1, h)

    @staticmethod
    def mix(
        reset: Float[Tensor, "*R hidden"],
        candidate: Float[Tensor, "*R hidden"],
        update: Float[Tensor, "*R hidden"],
        h: Float[Tensor, "*R hidden"],
    ) -> Float[Tensor, "*R hidden"]:
        """The next hidden state from the gates before their sigmoids: h' = (1 - u) h + u tanh(r c)."""
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(h, candidate, torch.sigmoid(update))


def recur(
    cell: NormGRUCell, inputs: Float[Tensor, "B T I"], keep: Float[Tensor, "B T 1"], h: Float[Tensor, "B hidden"]
) -> Float[Tensor, "B T hidden"]:
    """The state after every row, from `h`; keep: 0 where what was before a row is forgotten, else 1."""
    of_input, of_h = cell.gates.weight.split_with_sizes([inputs.shape[-1], h.shape[-1]], 1)
    rows, states = F.linear(inputs, of_input), []
    for row, kept in zip(rows.unbind(1), keep.unbind(1), strict=True):
        h = cell.update(torch.addmm(row, (h * kept).to(row.dtype), of_h.t().to(row.dtype)), h * kept)
        states.append(h)
    return torch.stack(states, 1)


class SlowCopy(nn.Module):
    """An exponential moving average of a module, which gives targets that do not chase themselves."""

    def __init__(self, module: nn.Module, *, rate: float) -> None:
        super().__init__()
        self.module, self.rate = copy.deepcopy(module).requires_grad_(False), rate

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Move every weight by `rate` towards the module's."""
        slow: list[Tensor] = [*self.module.parameters()]
        fast: list[Tensor] = [*module.parameters()]
        torch._foreach_lerp_(slow, fast, self.rate)
