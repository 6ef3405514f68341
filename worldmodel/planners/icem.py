"""Improved cross-entropy method: coloured noise, kept elites, fewer samples in later iterations.

Pinneri et al., Sample-efficient Cross-Entropy Method for Real-time Planning (2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.coloured_noise import colour, mixing
from worldmodel.interfaces import Noise
from worldmodel.limits import require_number
from worldmodel.planners.cem import CEM


@dataclass(kw_only=True, eq=False)
class ICEM(CEM):
    """CEM whose samples are correlated over time, whose elites compete again, and which executes the best candidate.

    Args:
        beta: power of the noise falls with frequency as f^-beta, 0 is white.
        decay: samples of an iteration over those of the next, down to twice the elites.
        keep: share of the elites that compete in the next iteration.
    """

    candidates: int = 128
    elites: int = 12
    iterations: int = 5
    momentum: float = 0.1
    init_std: float = 0.7
    beta: float = 1.0
    decay: float = 1.25
    keep: float = 0.3

    execute_best = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(beta=self.beta, least=0)
        require_number(decay=self.decay, least=1)
        require_number(keep=self.keep, least=0, most=1)
        self.kept = round(self.keep * self.elites)
        self._mixing = mixing(self.horizon, self.beta)

    def counts(self, iterations: int) -> Sequence[int]:
        """Samples of every iteration, falling."""
        least = min(2 * self.elites, self.candidates)
        return [max(round(self.candidates * self.decay**-i), least) for i in range(iterations)]

    def noise(self, shape: tuple[int, ...], device: torch.device, generator: Noise) -> Float[Tensor, "B N H A"]:
        """Standard noise, correlated over time."""
        white = super().noise(shape, device, generator)
        return white if self.beta == 0 else colour(white, self._mixing)


make = ICEM
