"""Latents to pixels by transposed convolutions and painted patches."""

import itertools
import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.decoders._transposed import run_layers
from worldmodel.encoders.patch import PATCH
from worldmodel.limits import require_multiples, require_sizes
from worldmodel.patches import from_patches


class PatchDecoder(nn.Module):
    """The encoder's mirror: transposed convolutions (kernel 4, stride 2), then one product that paints 4x4 patches.

    Args:
        latent_dim: D, numbers of a latent.
        pixels: (c, h, w) of a frame.
        channels: of every stage, the smallest image first.
    """

    def __init__(
        self, *, latent_dim: int, pixels: tuple[int, int, int], channels: Sequence[int] = (64, 48, 32)
    ) -> None:
        require_sizes(channels=channels)
        super().__init__()
        colours, height, width = pixels
        grow = PATCH * 2 ** (len(channels) - 1)
        require_multiples(grow, pixels=pixels)
        self.start = (channels[0], height // grow, width // grow)
        self.project = nn.Linear(latent_dim, math.prod(self.start))
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(channels):
            layers += [nn.SiLU(), nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.paint = nn.Linear(channels[-1], colours * PATCH**2)

    def forward(self, latent: Float[Tensor, "R D"]) -> Float[Tensor, "R c h w"]:
        """The mean of p(o | s), as normalised frames."""
        c, h, w = self.start
        image = rearrange(self.project(latent), "R (h w c) -> R c h w", c=c, h=h, w=w)  # channels_last in memory
        patches = self.paint(F.silu(rearrange(run_layers(image, self.layers), "R c h w -> R h w c")))
        return from_patches(patches, size=PATCH)


make = PatchDecoder
