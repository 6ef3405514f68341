"""Predict what slow copies of encoder and filter make of later rows, and their rewards.

Schwarzer et al., Data-Efficient Reinforcement Learning with Self-Predictive Representations (2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.interfaces import Dynamics
from worldmodel.limits import require_number
from worldmodel.model import Model, Seen
from worldmodel.nets import SlowCopy
from worldmodel.objectives.latent_consistency import LatentConsistency


class SlowConsistency(LatentConsistency):
    """As `LatentConsistency`, with the targets' weights an exponential moving average that moves by `rate`.

    Args:
        steps: K, rows predicted open-loop.
        rate: share by which copies move in an update.
    """

    def __init__(self, *, encoder: nn.Module, dynamics: nn.Module, steps: int = 5, rate: float = 0.01) -> None:
        super().__init__(encoder=encoder, dynamics=dynamics, steps=steps)  # type: ignore[arg-type]
        require_number(rate=rate, above=0, most=1)
        self.encoder, self.dynamics = SlowCopy(encoder, rate=rate), SlowCopy(dynamics, rate=rate)

    @torch.no_grad()
    def targets(self, model: Model, seen: Seen) -> Float[Tensor, "B T D"]:
        """The slow model's latents of every row, no samples."""
        dynamics: Dynamics = self.dynamics.module  # type: ignore[assignment]
        batch = seen.batch
        embed = self.encoder.module(model.norm.as_product(batch.observation))
        blank = torch.zeros(len(embed), dynamics.carry_dim, device=embed.device)
        return dynamics.observe(embed, batch.action, batch.is_first, blank, sample=False).latent

    def follow(self, model: Model) -> None:
        self.encoder.follow(model.encoder)
        self.dynamics.follow(model.dynamics)  # type: ignore[arg-type]


make = SlowConsistency
