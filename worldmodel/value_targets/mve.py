"""Model-based value expansion: some imagined rewards before the value takes over.

Feinberg et al., Model-Based Value Expansion for Efficient Model-Free Reinforcement Learning (2018), equation 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.actor_critics.actor_critic import ActorCritic
from worldmodel.latent_rows import Transitions
from worldmodel.limits import require_whole
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.value_targets.value_target import ValueTarget, expansions


class ModelValueExpansion(ValueTarget):
    """r + Σ γ^k r̂_k + γ^(depth + 1) V(ẑ).

    Args:
        depth: decisions imagined after every row.
    """

    def __init__(self, *, depth: int = 2) -> None:
        require_whole(depth=depth)
        self.depth = depth

    @torch.no_grad()
    def __call__(self, learner: ActorCritic, simulator: LatentSimulator, rows: Transitions) -> Float[Tensor, "R"]:
        earned, weight, latent = expansions(learner, simulator, rows, depth=self.depth)
        return earned[-1] + weight[-1] * learner.value(latent[-1])


make = ModelValueExpansion
