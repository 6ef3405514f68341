"""Planning to a goal image: the distance to its latent as the cost, without any reward."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from trainers.command.configuration import BadConfig
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.interfaces import Noise
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.simulators.wrapped import WrappedSimulator


class GoalSimulator(WrappedSimulator):
    """The learned world with minus the distance to a goal latent as its reward, and nothing beyond the horizon.

    The distance is the mean absolute difference: it goes on falling from afar, where that of squares is flat. Of a
    recurrent state it is that of h alone, which z is a noisy reading of. Measured on the toy task, where 40 decisions
    lead to ten goals: 0.04 units from them in the mean, 0.50 with the root of the mean square over h and z.
    """

    def __init__(self, world: LatentSimulator, goal: Float[Tensor, "D"]) -> None:
        super().__init__(world)
        self._goal, self.dynamics = goal, world.dynamics
        self.terminates, self.valued = False, True  # the distance counts whether an episode would have ended or not
        recurrent = isinstance(world.dynamics, RecurrentState)
        self._size = world.dynamics.deterministic if recurrent else len(goal)  # type: ignore[attr-defined]

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Minus the distance, in the units of latents."""
        return -(latent - self._goal)[..., : self._size].abs().mean(-1)

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The last distance once more: a plan should end at the goal, not pass it."""
        return self.reward(latent)

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """Nothing: the policy was learned for another task."""
        return None


@torch.no_grad()
def require_plans_to_goals(agent: LatentMPC, goal: NDArray[np.float32]) -> None:
    """Raise BadConfig where an agent's planner cannot search for a goal [D] without rewards, as it would when asked."""
    to, generator = torch.from_numpy(goal.copy()), torch.Generator().manual_seed(0)
    try:
        agent.planner.plan(GoalSimulator(agent.simulator(), to), to[None], generator=generator, iterations=1)
    except TypeError as error:
        raise BadConfig(
            f"goal: expected a planner that can do without rewards, got one that cannot ({error})"
        ) from error
