"""A target of Q(z, a), and the imagined returns that targets are made of."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.actor_critics.actor_critic import ActorCritic
from worldmodel.dyna.branches import imagine
from worldmodel.latent_rows import Transitions
from worldmodel.simulators.latent import LatentSimulator


class ValueTarget(ABC):
    """One way to a target; without gradients."""

    @abstractmethod
    def __call__(self, learner: ActorCritic, simulator: LatentSimulator, rows: Transitions) -> Float[Tensor, "R"]:
        """The return to expect of every row's latent and action."""


@torch.no_grad()
def expansions(
    learner: ActorCritic, simulator: LatentSimulator, rows: Transitions, *, depth: int
) -> tuple[Float[Tensor, "depths R"], Float[Tensor, "depths R"], Float[Tensor, "depths R D"]]:
    """The rows continued for `depth` decisions by the policy in the model, as what n-step targets are made of.

    Entry k of the results is about k imagined decisions: its target is earned[k] + weight[k] * value(latent[k]).

    Returns:
        What was earned so far, the weight γ^(k+1) of what follows, 0 where the episode ended, and the latents.
    """
    earned, weight, latent = rows.reward, simulator.discount * rows.continues, rows.next_latent
    steps = [(earned, weight, latent)]
    for _ in range(depth):
        action, bonus = learner.act(latent)
        latent, reward, continues = imagine(simulator, latent, action)
        earned = earned + weight * (bonus + reward)
        weight = weight * simulator.discount * continues
        steps.append((earned, weight, latent))
    earned_all, weight_all, latent_all = (torch.stack(column) for column in zip(*steps, strict=True))
    return earned_all, weight_all, latent_all
