"""A perceptron as planners run it: in place, and in a precision of its own."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Layer = Callable[[Tensor], Tensor]


class Perceptron:
    """An `nn.Sequential` whose products are made in `dtype`, the last one in float32: its outputs rank candidates.

    Holds the weights as they were when it was made.
    """

    def __init__(self, net: nn.Sequential, dtype: torch.dtype) -> None:
        *hidden, last = net
        self._hidden = [in_place(layer, dtype) for layer in hidden]
        self._last = in_place(last, torch.float32)

    def __call__(self, x: Float[Tensor, "R I"]) -> Float[Tensor, "R O"]:
        """The outputs, in float32."""
        for layer in self._hidden:
            x = layer(x)
        return self._last(x.float())


def in_place(layer: nn.Module, dtype: torch.dtype) -> Layer:
    """A layer with weights in `dtype`, activations in place; other than linear, LayerNorm, SiLU and ReLU as it is."""
    if isinstance(layer, nn.Linear):
        return linear(layer.weight, layer.bias, dtype)
    if isinstance(layer, nn.LayerNorm):
        size, eps, cast = list(layer.normalized_shape), layer.eps, (layer.weight.to(dtype), layer.bias.to(dtype))
        return lambda x: torch.layer_norm(x, size, *cast, eps)
    if isinstance(layer, nn.SiLU):
        return lambda x: F.silu(x, inplace=True)
    return torch.relu_ if isinstance(layer, nn.ReLU) else layer


def linear(weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None, dtype: torch.dtype) -> Layer:
    """x [R I] to x Wᵀ + b [R O]."""
    of = weight.to(dtype).t()
    if bias is None:
        return lambda x: torch.mm(x, of)
    shift = bias.to(dtype)
    return lambda x: torch.addmm(shift, x, of)
