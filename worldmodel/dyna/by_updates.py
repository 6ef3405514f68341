"""Branches that grow longer with the number of updates.

Janner et al., When to Trust Your Model (2019), appendix on hyperparameters.
"""

import torch
from torch import Tensor

from worldmodel.dyna.rollout_length import RolloutLength
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_whole
from worldmodel.simulators.latent import LatentSimulator


class ByUpdates(RolloutLength):
    """1 at first, `longest` after `updates` of them, in equal stages.

    Args:
        longest: decisions of a branch in the end.
        updates: that it takes to get there.
    """

    made: Tensor

    def __init__(self, *, longest: int = 5, updates: int = 1000) -> None:
        require_whole(longest=longest, updates=updates)
        super().__init__()
        self.longest, self.updates = longest, updates
        self.register_buffer("made", torch.zeros((), dtype=torch.float64))

    def next(self, simulator: LatentSimulator, rows: LatentRows) -> int:
        share = min(float(self.made) / self.updates, 1.0)
        self.made += 1
        return 1 + int((self.longest - 1) * share)


make = ByUpdates
