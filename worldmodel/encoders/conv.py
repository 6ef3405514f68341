"""Pixels to embeddings by strided convolutions alone."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.errors import BadFact
from worldmodel.limits import require_sizes

FEW = 4  # output pixels up to which a product of patches beats the convolution


class ConvEncoder(nn.Module):
    """Convolutions of kernel 4 and stride 2, each halving the image, flattened.

    padding 0 is PlaNet's and Dreamer's "valid" form (64x64 to 2x2 after four layers), 1 keeps exact halves. Hafner et
    al., Learning Latent Dynamics for Planning from Pixels (2019), appendix.

    Args:
        pixels: (c, h, w) of a frame.
        channels: of every stage.
        padding: rows of zeros around an image.
    """

    def __init__(
        self, *, pixels: tuple[int, int, int], channels: Sequence[int] = (32, 64, 128, 256), padding: int = 0
    ) -> None:
        require_sizes(channels=channels)
        super().__init__()
        colours, height, width = pixels
        layers: list[nn.Module] = []
        for inputs, outputs in zip((colours, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=padding), nn.ReLU(inplace=True)]
            height, width = ((side + 2 * padding - 4) // 2 + 1 for side in (height, width))
        if min(height, width) < 1:
            raise BadFact(f"pixels: expected frames large enough for {len(channels)} halvings, got {pixels}")
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.embed_dim = channels[-1] * height * width

    def forward(self, frames: Float[Tensor, "B T c h w"]) -> Float[Tensor, "B T E"]:
        B = frames.shape[0]
        flat = rearrange(frames, "B T c h w -> (B T) c h w").contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            flat = _conv(flat, layer) if isinstance(layer, nn.Conv2d) else layer(flat)
        return rearrange(flat, "(B T) c h w -> B T (c h w)", B=B)


def _conv(image: Float[Tensor, "R i h w"], layer: nn.Conv2d) -> Float[Tensor, "R o h2 w2"]:
    """layer(image); on a CPU one product where few pixels come out, which its convolution kernels are slow at."""
    (kernel, _), height, width = layer.kernel_size, *image.shape[2:]
    down, across = range(0, height - kernel + 1, 2), range(0, width - kernel + 1, 2)
    if image.device.type != "cpu" or layer.padding != (0, 0) or len(down) * len(across) > FEW:
        return layer(image)
    assert layer.bias is not None
    rows = image.permute(0, 2, 3, 1)  # channels_last in memory, so a patch is `kernel` runs
    patches = torch.stack([rows[:, i : i + kernel, j : j + kernel].flatten(1) for i in down for j in across], 1)
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [k k i, o]
    pixels = torch.addmm(layer.bias, patches.flatten(0, 1), weight)
    return pixels.view(len(rows), len(down), len(across), -1).permute(0, 3, 1, 2)


make = ConvEncoder
