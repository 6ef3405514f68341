"""Cross-entropy method that starts from what the policy would do.

Elites weigh by the logarithm of their rank, as in Hansen and Ostermeier, Completely Derandomized Self-Adaptation in
Evolution Strategies (2001).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.limits import require_number
from worldmodel.planners.cem import CEM
from worldmodel.planners.search import Problem
from worldmodel.planners.shooting import Proposal, Scored, finite, moments, scored
from worldmodel.transfer import send


@dataclass(kw_only=True, eq=False)
class SeededCEM(CEM):
    """CEM with few candidates: its first Gaussian is that of the policy's best sequences, and better elites weigh more.

    Args:
        widen: std of the first Gaussian over that of the policy's best sequences, which is `least_std` at least.
            init_std: of the first Gaussian where there is no policy.
    """

    candidates: int = 100
    elites: int = 30
    policy_candidates: int = 64
    widen: float = 1.5
    least_std: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(widen=self.widen, least_std=self.least_std, least=0)
        ranks = torch.arange(1, self.elites + 1, dtype=torch.float64)
        self._weights = (math.log(self.elites + 0.5) - ranks.log()).float()

    def first(self, problem: Problem, policy: Float[Tensor, "B P H A"] | None) -> tuple[Proposal, Scored | None]:
        """The weighted moments of the policy's best sequences; the warm start is the mean where there is one."""
        plain, _ = super().first(problem, policy)
        if policy is None:
            return plain, None
        sequences = scored(problem, policy)
        top = sequences.best(self.elites)
        seeds, known = self.of_elites(plain, top), finite(top.scores[:, :1, None])
        std = torch.where(known, self.widen * seeds.std.clamp_min(self.least_std), plain.std)
        return Proposal(problem.warm_or(seeds.mean).clamp(-1, 1), std), sequences

    def of_elites(self, proposal: Proposal, top: Scored) -> Proposal:
        """Mean and std, weighted by rank; where none is finite, the proposal as it was."""
        weights = send(self._weights[: top.scores.shape[1]], top.scores.device).to(top.scores)
        return moments(proposal, top.actions, torch.where(finite(top.scores), weights, 0.0))


make = SeededCEM
