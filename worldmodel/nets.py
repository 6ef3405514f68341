"""Small building blocks that every network shares."""

from torch import nn


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """A perceptron of `layers` blocks (linear, LayerNorm, SiLU) and a linear output layer.

    The linear layers before a norm have no bias: the norm's own shift does that work.
    """
    blocks: list[nn.Module] = []
    for size in [inputs] + [hidden] * (layers - 1):
        blocks += [nn.Linear(size, hidden, bias=False), nn.LayerNorm(hidden), nn.SiLU()]
    return nn.Sequential(*blocks, nn.Linear(hidden if layers else inputs, outputs))


def zero_last(net: nn.Sequential) -> nn.Sequential:
    """Zero the output layer, so that a head starts at 0 instead of at a random guess that a planner would chase."""
    last = net[-1]
    assert isinstance(last, nn.Linear), last
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return net
