"""Pixels to embeddings by patches that are merged four by four: no pixel is looked at twice, all is matrix products.

Patch merging of Liu et al., Swin Transformer (2021), with a layer that is not linear in between and no attention.
"""

from collections.abc import Sequence
from itertools import pairwise

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.encoders.patch import PATCH
from worldmodel.limits import require_multiples, require_sizes
from worldmodel.nets import as_product
from worldmodel.patches import to_patches


class PatchMergingEncoder(nn.Module):
    """A linear layer on 4x4 pixels, then layers that make one place of 2x2, flattened.

    A quarter of the convolutions' products that `patch` has at equal channels, and products that bfloat16 makes fast.

    Args:
        pixels: (c, h, w) of a frame; h and w must be multiples of 4 * 2**(len(channels) - 1), BadValue otherwise.
        channels: of the first layer, then of each merging.
    """

    def __init__(self, *, pixels: tuple[int, int, int], channels: Sequence[int] = (32, 96, 128)) -> None:
        require_sizes(channels=channels)
        super().__init__()
        colours, height, width = pixels
        shrink = PATCH * 2 ** (len(channels) - 1)
        require_multiples(shrink, pixels=pixels)
        self.stem = nn.Linear(colours * PATCH**2, channels[0])
        self.layers = nn.ModuleList(nn.Linear(4 * inputs, outputs) for inputs, outputs in pairwise(channels))
        self.embed_dim = channels[-1] * (height // shrink) * (width // shrink)

    def forward(self, frames: Float[Tensor, "B T c h w"]) -> Float[Tensor, "B T E"]:
        B = frames.shape[0]
        places = F.silu(self.stem(to_patches(as_product(frames.flatten(0, 1)), size=PATCH)))
        for layer in self.layers:
            places = F.silu(layer(rearrange(places, "R (h p) (w q) c -> R h w (p q c)", p=2, q=2)))
        return rearrange(places, "(B T) h w c -> B T (h w c)", B=B)


make = PatchMergingEncoder
