"""Pixels to embeddings by a patch stem and strided convolutions."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.limits import require_multiples, require_sizes
from worldmodel.nets import as_product
from worldmodel.patches import to_patches

PATCH = 4  # the stem's patch size in pixels


class PatchEncoder(nn.Module):
    """A patch stem (kernel and stride 4), then convolutions (kernel 4, stride 2), flattened.

    On a CPU the stem, a product, costs a third of two thin convolutions: three colours fill no vector register.

    Args:
        pixels: (c, h, w) of a frame; h and w must be multiples of 4 * 2**(len(channels) - 1), BadValue otherwise.
        channels: of the stem, then of each convolution.
    """

    def __init__(self, *, pixels: tuple[int, int, int], channels: Sequence[int] = (32, 64, 64)) -> None:
        require_sizes(channels=channels)
        super().__init__()
        colours, height, width = pixels
        shrink = PATCH * 2 ** (len(channels) - 1)
        require_multiples(shrink, pixels=pixels)
        self.stem = nn.Linear(colours * PATCH * PATCH, channels[0])
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.embed_dim = channels[-1] * (height // shrink) * (width // shrink)

    def forward(self, frames: Float[Tensor, "B T c h w"]) -> Float[Tensor, "B T E"]:
        B = frames.shape[0]
        patches = to_patches(as_product(frames.flatten(0, 1)), size=PATCH)
        image = rearrange(F.silu(self.stem(patches)), "R h w c -> R c h w")  # channels_last, as the layers are
        return rearrange(self.layers(image), "(B T) c h w -> B T (c h w)", B=B)


make = PatchEncoder
