"""Predict the latents of later rows, held still, and their rewards: no frame is ever decoded (equation 5.3.6).

Hansen et al., Temporal Difference Learning for Model Predictive Control (2022).
"""

from jaxtyping import Float
from torch import Tensor

from worldmodel.limits import require_whole
from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Embeds, Latents, Objective
from worldmodel.unrolling import open_loop_losses


class LatentConsistency(Objective):
    """Open-loop predictions of `steps` rows against the latents inferred there, without a gradient to these.

    Rewards alone say what a latent must hold: what they do not depend on may be forgotten.

    Args:
        steps: K, rows predicted open-loop.
    """

    looks_ahead = True

    def __init__(self, *, encoder: Embeds, dynamics: Latents, steps: int = 5) -> None:
        super().__init__()
        require_whole(steps=steps)
        self.steps = steps

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`consistency`, `unrolled_reward`, and `unrolled_continuation` where episodes can end."""
        return open_loop_losses(model, seen, target=self.targets(model, seen), steps=self.steps)

    def targets(self, model: Model, seen: Seen) -> Float[Tensor, "B T D"]:
        """What predictions must come to, for every row."""
        return seen.belief.latent


make = LatentConsistency
