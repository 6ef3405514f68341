"""Decode the frames, and have priors that were rolled several rows ahead meet the posteriors: latent overshooting.

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), equation 7.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel.limits import require_number, require_whole
from worldmodel.model import Model, Seen
from worldmodel.objectives.reconstruction import Reconstruction
from worldmodel.unrolling import latent_overshooting, mean_within_episodes, posterior_of, same_episode, stepper


class Overshooting(Reconstruction):
    """`Reconstruction`, and the mean KL of priors 2 to `steps` rows ahead; one row ahead is the dynamics' own term.

    Args:
        steps: K, rows predicted open-loop.
        weight: of that KL in nats, β of the equation. A model that only predicts has unit Gaussians: half the
            squared distance, summed over the latent.
        options: those of `Reconstruction`.
    """

    options_go_to = Reconstruction

    def __init__(self, *, steps: int = 5, weight: float = 1.0, **options: Any) -> None:
        require_number(weight=weight, least=0)
        super().__init__(**options)
        require_whole(steps=steps, least=2)  # one row ahead is the dynamics' own KL
        self.steps = steps
        self.loss_weights["overshooting"] = weight

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`image` and `overshooting`."""
        belief, action = seen.belief, seen.batch.action
        step, posterior = stepper(model.dynamics), posterior_of(belief)
        kl = latent_overshooting(step, belief.latent, posterior, action, steps=self.steps)
        within = same_episode(seen.batch.is_first, steps=self.steps)
        overshooting = mean_within_episodes(belief, kl[..., 1:], within[..., 1:])
        return {**super().losses(model, seen), "overshooting": overshooting}


make = Overshooting
