"""Pixels to embeddings by strided convolutions alone."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Convolutions of kernel 4 and stride 2, each halving the image, flattened.

    padding 0 is PlaNet's and Dreamer's "valid" form (64x64 to 2x2 after four layers), 1 keeps exact halves.
    Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), appendix.
    """

    def __init__(
        self, *, pixels: tuple[int, int, int], channels: tuple[int, ...] = (32, 64, 128, 256), padding: int = 0
    ) -> None:
        super().__init__()
        colours, height, width = pixels
        layers: list[nn.Module] = []
        for inputs, outputs in zip((colours, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=padding), nn.ReLU()]
            height, width = ((side + 2 * padding - 4) // 2 + 1 for side in (height, width))
        if min(height, width) < 1:
            raise ValueError(f"pixels: expected frames large enough for {len(channels)} halvings, got {pixels}")
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.embed_dim = channels[-1] * height * width

    def forward(self, frames: Float[Tensor, "B T c h w"]) -> Float[Tensor, "B T E"]:
        """Embed normalised frames."""
        B = frames.shape[0]
        flat = rearrange(frames, "B T c h w -> (B T) c h w").contiguous(memory_format=torch.channels_last)
        return rearrange(self.layers(flat), "(B T) c h w -> B T (c h w)", B=B)


make = ConvEncoder
