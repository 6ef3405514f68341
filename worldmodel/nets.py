"""Small building blocks that every network shares."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """A perceptron of `layers` blocks (linear, LayerNorm, SiLU) and a linear output layer.

    The first layer's bias is a yardstick: without one the norm would leave of an input its direction alone. Later
    layers before a norm have none: their inputs have one size, and the norm's own shift does that work.
    """
    blocks: list[nn.Module] = []
    for size in [inputs] + [hidden] * (layers - 1):
        blocks += [nn.Linear(size, hidden, bias=not blocks), nn.LayerNorm(hidden), nn.SiLU()]
    return nn.Sequential(*blocks, nn.Linear(hidden if layers else inputs, outputs))


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

    def forward(self, x: Float[Tensor, "*R I"], h: Float[Tensor, "*R D"]) -> Float[Tensor, "*R D"]:
        """The next hidden state."""
        return self.update(self.gates(torch.cat([x, h], -1)), h)

    def update(self, gates: Float[Tensor, "*R 3D"], h: Float[Tensor, "*R D"]) -> Float[Tensor, "*R D"]:
        """The next hidden state from the gates' sums before the norm."""
        # autocast hands out other precisions on the CPU than on a GPU; the state keeps its own
        reset, candidate, update = self.norm(gates).to(h.dtype).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(h, candidate, torch.sigmoid(update - 1))
