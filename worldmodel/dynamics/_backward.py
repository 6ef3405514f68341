"""What the fused operations share: LayerNorm, SiLU and a GRU's gates, and their gradients row by row."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

_norm_backward = torch.ops.aten.native_layer_norm_backward.default
silu_backward = torch.ops.aten.silu_backward.default
EPS = 1e-5  # of nn.LayerNorm


class Norm(NamedTuple):
    """A LayerNorm over all rows at once."""

    sums: Tensor
    output: Tensor
    mean: Tensor
    rstd: Tensor
    gain: Tensor
    shift: Tensor

    def rows(self) -> Iterator[tuple[Tensor, ...]]:
        """Last row first: what `back` reads of a row, before its gradient."""
        return zip(*map(last_first, (self.sums, self.mean, self.rstd)), strict=True)

    def back(self, gradient: Tensor, row: tuple[Tensor, ...]) -> Tensor:
        """The gradient of a row's sums from that of its outputs."""
        sums, mean, rstd = row
        return self._back(gradient, sums, mean, rstd, [True, False, False])[0]

    def back_weights(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of gain and shift from those of all outputs."""
        _, gain, shift = self._back(gradients, self.sums, self.mean, self.rstd, [False, True, True])
        return gain, shift

    def _back(self, gradient: Tensor, sums: Tensor, mean: Tensor, rstd: Tensor, mask: list[bool]) -> Any:
        return _norm_backward(gradient, sums, self.gain.shape, mean, rstd, self.gain, self.shift, mask)


def normed(sums: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm's output alone."""
    return torch.native_layer_norm(sums, gain.shape, gain, shift, EPS)[0]


def norm(sums: Tensor, gain: Tensor, shift: Tensor) -> Norm:
    return Norm(sums, *torch.native_layer_norm(sums, gain.shape, gain, shift, EPS), gain, shift)


def last_first(column: Tensor) -> Iterator[Tensor]:
    return reversed(column.unbind(0))


def gate_derivatives(normed: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Of h' by the three gates [T B 3 D], and by h [T B D]."""
    reset, candidate, update = normed.chunk(3, -1)
    reset, update = torch.sigmoid(reset), torch.sigmoid(update - 1)
    proposed = torch.tanh(reset * candidate)
    stay = 1 - update
    by_product = update * (1 - proposed.square())
    by_candidate = by_product * reset
    by_reset = by_candidate * candidate * (1 - reset)
    return torch.stack([by_reset, by_candidate, (proposed - h) * update * stay], -2), stay


def product(gradient: Tensor, read: Tensor) -> Tensor:
    return gradient.flatten(0, 1).t() @ read.flatten(0, 1)
