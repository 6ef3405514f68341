"""Products and perceptrons with fixed weights, as planners run them by the thousand."""

import platform
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "relu", "swish"]

# Rows from which float32 gains by packed weights: speed 0.6 at 32, 1.0 at 256, 1.15 at 1000 (200 x 400, one core)
PACKED_ROWS = 256


class Product:
    """x Wᵀ + b and an activation, in one pass where the processor's library can.

    Weights are cast to `dtype`, and on a CPU also packed into the blocks that oneDNN's kernels read, which the usual
    product does anew in every call. The packed call is torch's own, of no public name, and taken on x86 alone, where it
    was measured: without it, all is the same but slower.
    """

    def __init__(
        self,
        weight: Float[Tensor, "O I"],
        bias: Float[Tensor, "O"] | None,
        dtype: torch.dtype,
        activation: Activation = "none",
    ) -> None:
        weight = weight.detach().to(dtype)
        self._of = weight.t()
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._activation: Activation = activation
        self._packed = _packed(weight)
        self._least = 1 if dtype == torch.bfloat16 else PACKED_ROWS

    def __call__(self, x: Float[Tensor, "R I"]) -> Float[Tensor, "R O"]:
        """A fresh tensor."""
        if self._packed is not None and len(x) >= self._least:
            return _linear(x, self._packed, self._bias, self._activation, [], "")
        y = torch.mm(x, self._of) if self._bias is None else torch.addmm(self._bias, x, self._of)
        return _activate_(y, self._activation)

    def into(self, x: Float[Tensor, "R I"], out: Float[Tensor, "R O"]) -> None:
        """Write it to out, which may be a part of wider rows."""
        if self._bias is None or self._activation != "none" or (self._packed is not None and len(x) >= self._least):
            out.copy_(self(x))
        else:
            torch.addmm(self._bias, x, self._of, out=out)

    def added(self, x: Float[Tensor, "R I"], other: Float[Tensor, "R O"]) -> Float[Tensor, "R O"]:
        """x Wᵀ + b + other, whose memory may be used."""
        assert self._activation == "none", self._activation
        if self._packed is not None and len(x) >= self._least:
            return _linear.binary(x, other, self._packed, self._bias, "add")
        y = other.addmm_(x, self._of)
        return y if self._bias is None else y.add_(self._bias)


_measured = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _measured else None


def _packed(weight: Float[Tensor, "O I"]) -> Tensor | None:
    if _linear is None or weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


def _activate_(y: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return torch.relu_(y)
    return F.silu(y, inplace=True) if activation == "swish" else y


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
