"""Latents must look like a standard normal along random directions, which neither collapse nor redundancy does.

Balestriero & LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics (2025), after the
test of Epps and Pulley (1983).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SIGReg(nn.Module):
    """Weighted squared distance of characteristic functions, averaged over `projections` fresh directions.

    knots, reach: of the trapezoid rule over frequencies [0, reach], doubled for their mirror images.
    """

    frequency: Tensor
    normal: Tensor
    weight: Tensor

    def __init__(
        self, *, latent_dim: int, embed_dim: int, projections: int = 256, knots: int = 17, reach: float = 3.0
    ) -> None:
        super().__init__()
        for name, number, least in (("projections", projections, 1), ("knots", knots, 2)):
            if number < least:
                raise ValueError(f"{name}: expected at least {least}, got {number}")
        self.projections = projections
        frequency = torch.linspace(0, reach, knots)
        rule = torch.full((knots,), 2 * reach / (knots - 1))
        rule[[0, -1]] /= 2
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("normal", (-frequency.square() / 2).exp(), persistent=False)
        self.register_buffer("weight", rule * self.normal, persistent=False)

    def forward(self, latent: Float[Tensor, "R D"], embed: Float[Tensor, "R E"]) -> Float[Tensor, ""]:
        """The statistic per row, so that it does not grow with the batch; `embed` is not looked at."""
        direction = torch.randn(latent.shape[-1], self.projections, device=latent.device)
        along = latent.float() @ (direction / direction.norm(dim=0))  # [R P]
        angle = along.unsqueeze(-1) * self.frequency  # [R P K]
        real, imaginary = angle.cos().mean(0), angle.sin().mean(0)
        distance = (real - self.normal).square() + imaginary.square()
        return (distance @ self.weight).mean()


make = SIGReg
