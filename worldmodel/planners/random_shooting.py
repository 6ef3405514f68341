"""Random shooting: the best of uniformly drawn sequences, the baseline of every planner."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import uniform
from worldmodel.interfaces import Noise
from worldmodel.planners.shooting import Proposal, Scored, Shooting


@dataclass(kw_only=True, eq=False)
class RandomShooting(Shooting):
    """Score uniform sequences and execute the best; the warm start and the policy's sequences compete too.

    Its predicted return is a maximum over many scores, hence optimistic.
    """

    iterations: int = 1
    init_std: float = field(default=0.0, init=False)  # samples are not around the mean

    execute_best = True
    kept = 1

    def sample(self, proposal: Proposal, count: int, generator: Noise) -> Float[Tensor, "B N H A"]:
        """Uniform sequences, the warm start first."""
        B, H, A = proposal.mean.shape
        actions = 2 * uniform(B, count, H, A, generator=generator, device=proposal.mean.device) - 1
        actions[:, 0] = proposal.mean
        return actions

    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """Nothing is learned from the scores."""
        return proposal


make = RandomShooting
