"""Latents to pixels by transposed convolutions alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.decoders._transposed import expand_point, run_layers
from worldmodel.errors import BadFact
from worldmodel.limits import require_sizes


class ConvDecoder(nn.Module):
    """A linear start at 1x1, then transposed convolutions of stride 2 up to 64x64.

    kernels 5, 5, 6, 6 turn 1x1 into 64x64. Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019).

    Args:
        latent_dim: D, numbers of a latent.
        pixels: (c, h, w) of a frame.
        channels: of every stage.
        kernels: side of every kernel.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        pixels: tuple[int, int, int],
        channels: Sequence[int] = (1024, 128, 64, 32),
        kernels: Sequence[int] = (5, 5, 6, 6),
    ) -> None:
        require_sizes(channels=channels, kernels=kernels)
        super().__init__()
        side = 1
        for kernel in kernels:
            side = (side - 1) * 2 + kernel
        if pixels[1:] != (side, side):
            raise BadFact(f"pixels: expected {side}x{side} frames for kernels {kernels}, got {pixels[1]}x{pixels[2]}")
        self.start = nn.Linear(latent_dim, channels[0])
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in zip(channels, (*channels[1:], pixels[0]), kernels, strict=True):
            layers += [nn.ConvTranspose2d(inputs, outputs, kernel_size=kernel, stride=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)

    def forward(self, latent: Float[Tensor, "R D"]) -> Float[Tensor, "R c h w"]:
        """The mean of p(o | s), as normalised frames."""
        first, *rest = self.layers
        assert isinstance(first, nn.ConvTranspose2d)
        return run_layers(expand_point(latent, self.start, first), rest)


make = ConvDecoder
