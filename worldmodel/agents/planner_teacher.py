"""An agent that plans as a teacher: it follows what is done, and says at every decision what it would do."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.agents.latent_mpc import LatentMPC, shifted
from worldmodel.distillation.planner_gaussian import LEAST_STD, PlannerTarget
from worldmodel.interfaces import Carry, Noise, Observation


class PlannerTeacher:
    """Labels observations with the planner's Gaussian, whoever acts: Ross et al., DAgger (2011), algorithm 3.1.

    Args:
        agent: the teacher, in evaluation mode.
        least_std: of labels, see `PlannerTarget`.
    """

    def __init__(self, agent: LatentMPC, *, least_std: float = LEAST_STD) -> None:
        self.agent, self.least_std = agent, least_std

    def initial_carry(self, batch: int) -> Carry:
        """What to remember before the first label of `batch` episodes."""
        return self.agent.initial_carry(batch)

    @torch.no_grad()
    def label(
        self, observation: Observation, is_first: Bool[Tensor, "B"], carry: Carry, *, generator: Noise = None
    ) -> tuple[PlannerTarget, Carry]:
        """What the planner would do now [B A], searched from its last plan; arguments as in `interfaces.Acts.act`.

        And what to remember, which `executed` must be told the action.
        """
        belief, warm = self.agent.perceive(observation, is_first, carry)
        latent = belief.latent[:, 0]
        plan = self.agent.plan(latent, warm, generator)
        after = replace(carry, belief=belief.carry, action=plan.action, plan=shifted(plan.mean))
        return PlannerTarget.of(plan, least_std=self.least_std), after

    @staticmethod
    def executed(carry: Carry, action: Float[Tensor, "B A"]) -> Carry:
        """The carry when another action than the planner's led to what is seen next."""
        return replace(carry, action=action)
