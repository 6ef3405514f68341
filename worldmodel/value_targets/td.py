"""One-step targets, r + γ V(z')."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.actor_critics.actor_critic import ActorCritic
from worldmodel.latent_rows import Transitions
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.value_targets.value_target import ValueTarget


class OneStep(ValueTarget):
    """The row's own reward, and the learner's value after it."""

    @torch.no_grad()
    def __call__(self, learner: ActorCritic, simulator: LatentSimulator, rows: Transitions) -> Float[Tensor, "R"]:
        """r + γ V(z'), without V after an end."""
        return rows.reward + simulator.discount * rows.continues * learner.value(rows.next_latent)


make = OneStep
