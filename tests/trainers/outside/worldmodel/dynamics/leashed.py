"""Gaussian latents that are kept small: dynamics with a loss term of its own."""

from types import MappingProxyType

from worldmodel.dynamics.gaussian import GaussianDynamics
from worldmodel.errors import BadValue


class Leashed(GaussianDynamics):
    loss_weights = MappingProxyType({"kl": 0.1, "leash": 0.5})

    def __init__(self, *, reach: float = 1.0, **sizes: int):
        super().__init__(**sizes)
        if reach <= 0:
            raise BadValue(f"reach: expected a number above 0, got {reach}")
        self.reach = reach

    def losses(self, belief, batch):
        return {**super().losses(belief, batch), "leash": (belief.latent / self.reach).square().mean(-1)}


def make(*, embed_dim: int, action_dim: int, latent_dim: int = 8, hidden: int = 16, reach: float = 1.0) -> Leashed:
    return Leashed(embed_dim=embed_dim, action_dim=action_dim, latent_dim=latent_dim, hidden=hidden, reach=reach)
