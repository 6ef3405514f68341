"""A perceptron as planners run it: in place, and in a precision of its own."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.rollouts.product import Activation, Product

Layer = Callable[[Tensor], Tensor]


class Perceptron:
    """An `nn.Sequential` whose products are made in `dtype`, the last one in float32: its outputs rank candidates.

    Holds the weights as they were when it was made.
    """

    def __init__(self, net: nn.Sequential, dtype: torch.dtype) -> None:
        *hidden, last = net
        self._hidden = in_place(hidden, dtype)
        (self._last,) = in_place([last], torch.float32)

    def __call__(self, x: Float[Tensor, "R I"]) -> Float[Tensor, "R O"]:
        """The outputs, in float32."""
        for layer in self._hidden:
            x = layer(x)
        return self._last(x.float())


def in_place(net: Iterable[nn.Module], dtype: torch.dtype) -> list[Layer]:
    """Layers with weights in `dtype`, activations in the product or in place; layers of other kinds as they are."""
    layers: list[Layer] = []
    modules = list(net)
    while modules:
        layer = modules.pop(0)
        if isinstance(layer, nn.Linear):
            follows = _activation(modules[0]) if modules else "none"
            if follows != "none":
                modules.pop(0)
            layers.append(Product(layer.weight, layer.bias, dtype, follows))
        else:
            layers.append(_without_product(layer, dtype))
    return layers


def _activation(layer: nn.Module) -> Activation:
    return "relu" if isinstance(layer, nn.ReLU) else "swish" if isinstance(layer, nn.SiLU) else "none"


def _without_product(layer: nn.Module, dtype: torch.dtype) -> Layer:
    if isinstance(layer, nn.LayerNorm):
        size, eps, cast = list(layer.normalized_shape), layer.eps, (layer.weight.to(dtype), layer.bias.to(dtype))
        return lambda x: torch.layer_norm(x, size, *cast, eps)
    if isinstance(layer, nn.SiLU):
        return lambda x: F.silu(x, inplace=True)
    return torch.relu_ if isinstance(layer, nn.ReLU) else layer
