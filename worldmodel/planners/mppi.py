"""Model predictive path integral control: a softmax over returns instead of a hard cut.

Williams et al. (2017); restricted to elites as in TD-MPC2, Hansen et al. (2024).
"""

from dataclasses import dataclass

import torch

from worldmodel.limits import require_number, require_whole
from worldmodel.planners.shooting import Proposal, Scored, Shooting, finite, moments


@dataclass(kw_only=True, eq=False)
class MPPI(Shooting):
    """Refit a Gaussian to the elites weighted by exp(score / temperature), and execute its mean.

    Args:
        elites: candidates that are weighted at all.
        temperature: in units of the range of the elites' scores, so that it means the same whatever rewards are
            worth.
        min_std, max_std: bounds of the refitted std.
    """

    candidates: int = 512
    elites: int = 64
    iterations: int = 6
    temperature: float = 0.5
    min_std: float = 0.05
    max_std: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(elites=self.elites, most=self.candidates)
        require_number(temperature=self.temperature, max_std=self.max_std, above=0)
        require_number(min_std=self.min_std, least=0, most=self.max_std)
        require_number(init_std=self.init_std, least=0)

    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """Weighted mean and std of the best candidates; where none is finite, the proposal as it was."""
        top = pool.best(self.elites)
        counts = finite(top.scores)
        best = top.scores[:, :1]
        worst = torch.where(counts, top.scores, best).min(1, keepdim=True).values
        # halves first: the range of two finite numbers need not be finite
        gap = (best / 2 - top.scores / 2) / (best / 2 - worst / 2).clamp_min(torch.finfo(best.dtype).tiny)
        weight = torch.where(counts, (-gap / self.temperature).exp(), 0.0)
        new = moments(proposal, top.actions, weight)
        std = torch.where(counts[:, :1, None], new.std.clamp(self.min_std, self.max_std), proposal.std)
        return Proposal(new.mean, std)


make = MPPI
