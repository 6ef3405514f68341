"""Transposed convolutions of stride 2, cast as the ordinary convolution or the product that a CPU runs fastest."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from worldmodel.nets import as_product
from worldmodel.patches import as_words

THIN = 8  # outputs up to which the sub-pixel form costs half or less; at 16, a full vector register, it is even


def conv_transpose(image: Float[Tensor, "R i h w"], layer: nn.ConvTranspose2d) -> Float[Tensor, "R o h2 w2"]:
    """layer(image) and its gradients; on a CPU, to three colours, the forward pass costs a third.

    layer: square kernel, stride 2, any padding, one group, with a bias.
    """
    if image.device.type != "cpu":
        return layer(image)
    assert (layer.stride, layer.dilation, layer.groups, layer.output_padding) == ((2, 2), (1, 1), 1, (0, 0)), layer
    assert layer.bias is not None, layer
    return _ConvTranspose.apply(*map(as_product, (image, layer.weight, layer.bias)), layer.padding[0])


def run_layers(image: Float[Tensor, "R i h w"], layers: Iterable[nn.Module]) -> Float[Tensor, "R o h2 w2"]:
    """The layers in turn, transposed convolutions by `conv_transpose`."""
    for layer in layers:
        image = conv_transpose(image, layer) if isinstance(layer, nn.ConvTranspose2d) else layer(image)
    return image


def expand_point(latent: Float[Tensor, "R D"], start: nn.Linear, layer: nn.ConvTranspose2d) -> Float[Tensor, "R o k k"]:
    """layer(start(latent) as a 1x1 image), channels_last: a chain of products, in whichever order costs less.

    Many rows (from a few hundred at PlaNet's widths) are cheaper through the product of both weights.
    layer: any stride, no padding.
    """
    height, width = layer.kernel_size
    wide = layer.weight.permute(0, 2, 3, 1).flatten(1)  # [i, k k o]: a view of channels_last weights
    assert start.bias is not None and layer.bias is not None, "both layers carry a bias"
    offset = torch.addmm(layer.bias.repeat(height * width)[None], start.bias[None], wide)
    image = torch.linalg.multi_dot((latent, start.weight.t(), wide)) + offset
    return image.unflatten(1, (height, width, -1)).permute(0, 3, 1, 2)


def _sub_pixel(weight: Float[Tensor, "i o k k"]) -> Float[Tensor, "o4 i j j"]:
    """The kernels of the ordinary convolution that computes the four pixels of every 2x2 cell as channels (o, a, b).

    Odd kernels get a row and a column of zeros at the end; the caller crops what they paint.
    """
    odd = weight.shape[-1] % 2
    even = F.pad(weight, (0, odd, 0, odd)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [i, o, j, a, l, b]
    return even.flip(2, 4).permute(1, 3, 5, 0, 2, 4).flatten(0, 2).contiguous(memory_format=torch.channels_last)


def _interleave(cells: Float[Tensor, "R o4 h w"]) -> Float[Tensor, "R o h2 w2"]:
    """F.pixel_shuffle(cells, 2) of channels_last cells, moving the two neighbours of a row as one number."""
    R, quads, height, width = cells.shape
    image = cells.new_empty(R, quads // 4, 2 * height, 2 * width)
    rows = as_words(cells.permute(0, 2, 3, 1).contiguous(), 2).unflatten(3, (-1, 2))  # [R, h, w, o, a]
    as_words(image, 2).unflatten(2, (height, 2)).copy_(rows.permute(0, 3, 1, 4, 2))
    return image  # not a view: a layer that follows may work in place


def _paint_thin(image: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    kernels = _sub_pixel(weight)
    cells = F.conv2d(image, kernels, bias.repeat_interleave(4), padding=kernels.shape[-1] - 1)
    painted, end = _interleave(cells), padding + weight.shape[-1] % 2
    if end == 0:
        return painted
    return painted[:, :, padding : painted.shape[2] - end, padding : painted.shape[3] - end].contiguous()


class _ConvTranspose(torch.autograd.Function):
    """The usual function with two of oneDNN's slow kernels left out.

    Forward to few outputs goes through the sub-pixel form (a third of the time), and the bias's gradient is a plain
    sum: inside the weight gradient's kernel it costs up to as much again (bf16).
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.padding = padding
        if weight.shape[1] <= THIN:
            return _paint_thin(image, weight, bias, padding)
        return F.conv_transpose2d(image, weight, bias, stride=2, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)  # once, not once per product
        to_image, to_weight, to_bias = ctx.needs_input_grad[:3]
        geometry = ([2, 2], [ctx.padding] * 2, [1, 1], True, [0, 0], 1)  # stride, padding, dilation, transposed, ...
        images, weights, _ = torch.ops.aten.convolution_backward(
            gradient, image, weight, None, *geometry, [to_image, to_weight, False]
        )
        return images, weights, gradient.sum((0, 2, 3)) if to_bias else None, None
