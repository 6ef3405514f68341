"""Cross-entropy method (Algorithm 21)."""

from dataclasses import dataclass

import torch

from worldmodel.limits import require_number, require_whole
from worldmodel.planners.shooting import Proposal, Scored, Shooting, finite, moments


@dataclass(kw_only=True, eq=False)
class CEM(Shooting):
    """Refit a Gaussian to the elites, and execute its mean.

    Args:
        elites: candidates that refit it.
        momentum: how much of the old proposal each refit keeps.
        min_std: least spread of a refit.
    """

    elites: int = 100
    iterations: int = 10
    momentum: float = 0.0
    min_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(elites=self.elites, most=self.candidates)
        require_number(init_std=self.init_std, min_std=self.min_std, least=0)
        require_number(momentum=self.momentum, least=0, most=1)

    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """Mean and std of the best candidates; where none is finite, the proposal as it was."""
        top = pool.best(self.elites)
        new = self.of_elites(proposal, top)
        if self.momentum:
            mixed = (
                torch.lerp(one, old, self.momentum) for one, old in ((new.mean, proposal.mean), (new.std, proposal.std))
            )
            new = Proposal(*mixed)
        if self.min_std:
            some = finite(top.scores[:, :1, None])
            new = Proposal(new.mean, torch.where(some, new.std.clamp_min(self.min_std), proposal.std))
        return new

    def of_elites(self, proposal: Proposal, top: Scored) -> Proposal:
        """Mean and std of those that are finite; where none is, the proposal as it was."""
        std, mean = torch.std_mean(top.actions, 1, correction=0)
        if top.scores.device.type == "cpu" and top.scores.amin() > -torch.inf:  # elsewhere looking would wait
            return Proposal(mean, std)
        counts = finite(top.scores)
        full = counts.all(1)[:, None, None]
        some = moments(proposal, top.actions, counts.to(top.actions.dtype))
        return Proposal(torch.where(full, mean, some.mean), torch.where(full, std, some.std))


make = CEM
