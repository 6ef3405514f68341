"""How long Dyna's branches may be."""

from abc import ABC, abstractmethod

from torch import nn

from worldmodel.latent_rows import LatentRows
from worldmodel.simulators.latent import LatentSimulator


class RolloutLength(nn.Module, ABC):
    """How many decisions a branch is imagined for."""

    @abstractmethod
    def next(self, simulator: LatentSimulator, rows: LatentRows) -> int:
        """The length for this update, whose rows may be measured on."""
