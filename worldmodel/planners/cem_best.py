"""CEM that executes the best of what it knows instead of its mean, which nothing has compared with anything."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import ProposesMode
from worldmodel.planners.cem import CEM
from worldmodel.planners.search import Problem
from worldmodel.planners.shooting import Proposal, Scored, scored
from worldmodel.simulators.latent import follow


@dataclass(kw_only=True, eq=False)
class BestCEM(CEM):
    """CEM, then the best by predicted return of its mean, the shifted last plan, the policy's modes and all candidates.

    Costs one more scoring of up to four sequences, and a rollout of the policy's modes where the simulator has them.
    The value is a maximum over several promises: more optimistic than that of CEM's mean.
    """

    execute_best = True

    def _execute(self, problem: Problem, proposal: Proposal, best: Scored) -> tuple[Tensor, Tensor]:
        plans = [proposal.mean, best.actions[:, 0]]
        if problem.warm is not None:
            plans.append(problem.warm_or(proposal.mean))
        modes = self._modes(problem)
        if modes is not None:
            plans.append(modes)
        top = scored(problem, torch.stack(plans, 1)).best(1)
        return top.actions[:, 0], top.scores[:, 0]

    def _modes(self, problem: Problem) -> Float[Tensor, "B H A"] | None:
        """The policy's most probable actions, rolled through the model."""
        simulator = problem.simulator
        if not isinstance(simulator, ProposesMode) or not self.policy_candidates:
            return None
        actions = follow(simulator, problem.latent, simulator.propose_mode, horizon=self.horizon)
        return None if actions is None else actions.nan_to_num(0.0)


make = BestCEM
