"""CEM whose best candidates are finished by gradient steps: global search first, precision afterwards.

Bharadhwaj et al., Model-Predictive Control via Cross-Entropy and Gradient-Based Optimization (2020).
"""

from typing import Any

import torch
from torch import Tensor

from worldmodel.interfaces import Plan, Simulator
from worldmodel.planners.cem import CEM
from worldmodel.planners.deadline import Deadline
from worldmodel.planners.gradient import ascend
from worldmodel.planners.shooting import Proposal, Scored, finite


class GradientCEM(CEM):
    """CEM, then `steps` gradient steps from its mean and its `refined` best candidates; executes the best.

    The deadline covers CEM's iterations; the gradient steps come on top. Other arguments as of CEM.
    """

    execute_best = True

    def __init__(self, *, refined: int = 4, steps: int = 5, learning_rate: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        if refined < 1 or steps < 1:
            raise ValueError(f"refined and steps: expected at least 1, got {refined} and {steps}")
        self.remembered, self.steps, self.learning_rate = refined, steps, learning_rate

    def _execute(self, simulator: Simulator, latent: Tensor, usable: Tensor, proposal: Proposal, best: Scored) -> Plan:
        sound = torch.where(finite(best.scores)[:, :, None, None], best.actions, proposal.mean[:, None])
        starts = torch.cat([proposal.mean[:, None].clamp(-1, 1), sound], 1)
        timer = Deadline(None, latent.device)
        finished = ascend(simulator, latent, starts, steps=self.steps, learning_rate=self.learning_rate, timer=timer)
        return super()._execute(simulator, latent, usable, proposal, finished.best(1))


make = GradientCEM
