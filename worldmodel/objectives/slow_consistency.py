"""Predict what slow copies of encoder and filter make of later rows, and their rewards.

Schwarzer et al., Data-Efficient Reinforcement Learning with Self-Predictive Representations (2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.interfaces import Dynamics
from worldmodel.limits import require_number, require_whole
from worldmodel.nets import SlowCopy
from worldmodel.objectives import Model, Objective, Seen
from worldmodel.unrolling import open_loop_losses


class SlowConsistency(Objective):
    """As `LatentConsistency`, with the targets' weights an exponential moving average that moves by `rate`.

    Args:
        encoder: the agent's, for the size of its embeddings.
        dynamics: the agent's, for the size of its latents.
        steps: K, rows predicted open-loop.
        rate: share by which copies move in an update.

    Raises:
        BadValue: for an option out of its range.
    """

    looks_ahead = True

    def __init__(self, *, encoder: nn.Module, dynamics: nn.Module, steps: int = 5, rate: float = 0.01) -> None:
        super().__init__()
        require_whole(steps=steps)
        require_number(rate=rate, above=0, most=1)
        self.steps = steps
        self.encoder, self.dynamics = SlowCopy(encoder, rate=rate), SlowCopy(dynamics, rate=rate)

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`consistency`, `unrolled_reward`, and `unrolled_continuation` where episodes can end."""
        target, belief, steps = self.targets(model, seen), seen.belief, self.steps
        return open_loop_losses(
            model.dynamics,
            model.reward,
            belief,
            seen.batch,
            target=target,
            steps=steps,
            continuation=model.continuation,
        )

    @torch.no_grad()
    def targets(self, model: Model, seen: Seen) -> Float[Tensor, "B T D"]:
        """The slow model's latents of every row, no samples."""
        dynamics: Dynamics = self.dynamics.module  # type: ignore[assignment]
        batch = seen.batch
        embed = self.encoder.module(model.norm(batch.observation))
        blank = torch.zeros(len(embed), dynamics.carry_dim, device=embed.device)
        return dynamics.observe(embed, batch.action, batch.is_first, blank, sample=False).latent

    def follow(self, model: Model) -> None:
        """Move both copies."""
        self.encoder.follow(model.encoder)
        self.dynamics.follow(model.dynamics)  # type: ignore[arg-type]


make = SlowConsistency
