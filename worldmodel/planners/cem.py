"""Cross-entropy method (Algorithm 21)."""

from dataclasses import dataclass

import torch

from worldmodel.planners.search import require
from worldmodel.planners.shooting import Proposal, Scored, Shooting, finite, moments


@dataclass(kw_only=True, eq=False)
class CEM(Shooting):
    """Refit a Gaussian to the elites, and execute its mean.

    elites: candidates that refit it. momentum: how much of the old proposal each refit keeps. min_std: least spread
    of a refit.
    """

    elites: int = 100
    iterations: int = 10
    momentum: float = 0.0
    min_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(elites=self.elites, most=self.candidates)

    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """Mean and std of the best candidates; where none is finite, the proposal as it was."""
        top = pool.best(self.elites)
        new = moments(proposal, top.actions, finite(top.scores).to(top.actions.dtype))
        some = finite(top.scores)[:, :1, None]
        std = torch.lerp(new.std, proposal.std, self.momentum).clamp_min(self.min_std)
        return Proposal(torch.lerp(new.mean, proposal.mean, self.momentum), torch.where(some, std, proposal.std))


make = CEM
