"""Branches as long as the model's rewards can be trusted."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.dyna.rollout_length import RolloutLength
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.unrolling import later_rows, same_episode, unroll


class ByRewardError(RolloutLength):
    """As many decisions as rewards are predicted well for, open loop, by the recorded actions.

    The error of k decisions ahead is the mean square, in units of the rewards' variance: 1 is what their mean earns.

    Args:
        longest: the most decisions of a branch.
        limit: error up to which a number of decisions is trusted.
        windows: of a batch that are measured in every update.
        rate: of the running mean of errors, per update.
    """

    error: Tensor

    def __init__(self, *, longest: int = 5, limit: float = 0.3, windows: int = 8, rate: float = 0.02) -> None:
        require_whole(longest=longest, windows=windows)
        require_number(limit=limit, above=0)
        require_number(rate=rate, above=0, most=1)
        super().__init__()
        self.longest, self.limit, self.windows, self.rate = longest, limit, windows, rate
        self.register_buffer("error", torch.ones(longest))  # nothing is trusted before it was measured

    def next(self, simulator: LatentSimulator, rows: LatentRows) -> int:
        """Measure, and count how many decisions are trusted one after the other, at least 1."""
        steps = min(self.longest, rows.batch.reward.shape[1] - 1)
        error = open_loop_reward_error(simulator, rows, steps=steps, windows=self.windows)
        measured = torch.where(error.isfinite(), error, 1.0)
        seen, known = ~error.isnan(), self.error[:steps]
        known.copy_(torch.where(seen, known.lerp(measured, self.rate), known))
        trusted = (self.error[:steps] <= self.limit).long().cumprod(0).sum()
        return max(1, int(trusted))


@torch.no_grad()
def open_loop_reward_error(
    simulator: LatentSimulator, rows: LatentRows, *, steps: int, windows: int
) -> Float[Tensor, "K"]:
    """Mean square error of rewards 1 to `steps` = K decisions ahead over their variance, in the first windows.

    NaN for numbers of decisions that no two rows of an episode are apart, inf where predictions are no numbers.
    """
    batch, belief = rows.batch, rows.belief
    predicted = unroll(simulator.dynamics, belief.latent[:windows], batch.action[:windows], steps=steps)
    recorded = later_rows(batch.reward[:windows], steps=steps)
    missed = (simulator.reward(predicted) - recorded).square()
    counts = same_episode(batch.is_first[:windows], steps=steps)
    if belief.valid is not None:
        counts = counts & belief.valid[:windows, : missed.shape[1], None]
    missed = torch.where(counts, missed.nan_to_num(torch.inf, torch.inf), 0.0)
    return missed.sum((0, 1)) / counts.sum((0, 1)) / batch.reward.var().clamp_min(1e-6)


make = ByRewardError
