"""CEM whose best candidates are finished by gradient steps: global search first, precision afterwards.

Bharadhwaj et al., Model-Predictive Control via Cross-Entropy and Gradient-Based Optimization (2020).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.limits import require_number, require_whole
from worldmodel.planners.cem import CEM
from worldmodel.planners.gradient import ascend
from worldmodel.planners.search import Problem
from worldmodel.planners.shooting import Proposal, Scored, finite


@dataclass(kw_only=True, eq=False)
class GradientCEM(CEM):
    """CEM, then `steps` gradient steps from its mean and its `refined` best candidates; executes the best.

    Before a deadline CEM's iterations come first; gradient steps have the time that is left.

    Args:
        refined: candidates that are improved by gradients, beside the mean.
        steps: of gradient ascent for each of them.
        learning_rate: of Adam on the actions before their tanh.
    """

    refined: int = 4
    steps: int = 5
    learning_rate: float = 0.1

    execute_best = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(refined=self.refined, steps=self.steps)
        require_number(learning_rate=self.learning_rate, above=0)
        self.remembered = self.refined

    def _execute(self, problem: Problem, proposal: Proposal, best: Scored) -> tuple[Tensor, Tensor]:
        sound = torch.where(finite(best.scores)[:, :, None, None], best.actions, proposal.mean[:, None])
        starts = torch.cat([proposal.mean[:, None].clamp(-1, 1), sound], 1)
        rounds = problem.rounds(range(1, self.steps + 1))
        finished = ascend(problem.simulator, problem.latent, starts, rounds=rounds, rate=self.learning_rate)
        return super()._execute(problem, proposal, finished.best(1))


make = GradientCEM
