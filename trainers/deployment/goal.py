"""Planning to a goal image: the distance to its latent as the cost, without any reward."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise
from worldmodel.simulators.latent import LatentSimulator, score_by_steps


class GoalSimulator:
    """The learned world with minus the distance to a goal latent as its reward, and nothing beyond the horizon.

    Args:
        world: whose dynamics and policy are kept.
        goal: [D].
    """

    def __init__(self, world: LatentSimulator, goal: Float[Tensor, "D"]) -> None:
        self._world, self._goal = world, goal
        self.action_dim, self.discount, self.dynamics = world.action_dim, world.discount, world.dynamics

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """The mean of the next latent."""
        return self._world.step(latent, action)

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Minus the distance, in the units of latents."""
        return -(latent - self._goal).square().mean(-1).sqrt()

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The last distance once more: a plan should end at the goal, not pass it."""
        return self.reward(latent)

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """Nothing: the policy was learned for another task."""
        return None

    def returns(self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]) -> Float[Tensor, "B N"]:
        """What `score` computes step by step."""
        return score_by_steps(self, latent, actions)


def toward(world: LatentSimulator, goal: Tensor) -> LatentSimulator:
    """The world to plan in for a goal; zeros of a goal latent are one as any other."""
    assert torch.is_floating_point(goal)
    return GoalSimulator(world, goal)  # type: ignore[return-value]
