"""Cross-entropy method (Algorithm 21)."""

import torch

from worldmodel.planners.shooting import Proposal, Scored, Shooting, finite, moments


class CEM(Shooting):
    """Refit a Gaussian to the elites, and execute its mean.

    horizon: decisions looked ahead. candidates, elites: samples per iteration, and how many of them refit.
    momentum: how much of the old proposal each refit keeps. init_std, min_std: of actions in [-1, 1].
    policy_candidates: sequences of the learned policy that join the samples, 0 for the plain method.
    """

    def __init__(
        self,
        *,
        horizon: int = 12,
        candidates: int = 1000,
        elites: int = 100,
        iterations: int = 10,
        momentum: float = 0.0,
        init_std: float = 1.0,
        min_std: float = 0.0,
        policy_candidates: int = 0,
    ) -> None:
        super().__init__(
            horizon=horizon,
            candidates=candidates,
            iterations=iterations,
            init_std=init_std,
            policy_candidates=policy_candidates,
        )
        if not 0 < elites <= candidates:
            raise ValueError(f"elites: expected 1 to candidates={candidates}, got {elites}")
        self.elites, self.momentum, self.min_std = elites, momentum, min_std

    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """Mean and std of the best candidates; where none is finite, the proposal as it was."""
        top = pool.best(self.elites)
        new = moments(proposal, top.actions, finite(top.scores).to(top.actions.dtype))
        some = finite(top.scores)[:, :1, None]
        std = torch.lerp(new.std, proposal.std, self.momentum).clamp_min(self.min_std)
        return Proposal(torch.lerp(new.mean, proposal.mean, self.momentum), torch.where(some, std, proposal.std))


make = CEM
