"""A share of the windows with a chance that decays with age, the rest uniformly.

What was collected last is learned from at once and old experience is not forgotten: the aim of Wang and Ross, Boosting
Soft Actor-Critic: Emphasizing Recent Experience without Forgetting the Past (2019), and of the online queue of Hafner
et al., Mastering Diverse Domains through World Models (2023). The mixture is this project's, so that its chances are
known in closed form:

    p(window) = share * q^age (1 - q) / (1 - q^n) / S  +  (1 - share) / N,    q = 2^(-1 / half_life)

age: newer windows of its stream. n: windows of its stream. S: streams that have any. N: windows of all streams.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.samplers.uniform import Uniform
from datamodules.windows import WindowIndex
from worldmodel.limits import require_number


class Recent(Uniform):
    """Draws recent windows more often.

    share: expected share of the batch that is drawn by age. half_life: newer windows of a stream that halve the chance.
    """

    def __init__(self, *, share: float = 0.25, half_life: float = 1000.0, seed: int = 0) -> None:
        require_number(share=share, least=0, most=1)
        require_number(half_life=half_life, above=0)
        super().__init__(seed=seed)
        self.share, self.half_life = share, half_life

    def _choose(self, index: WindowIndex, batch: int) -> NDArray[np.int64]:
        # all numbers are drawn every time, so that a seed's sequence does not depend on which are used
        by_age, old = self._rng.random(batch) < self.share, self._rng.integers(0, index.total, size=batch)
        return np.where(by_age, self._recent(index, self._rng.random((2, batch))), old)

    def _recent(self, index: WindowIndex, chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """Numbers of windows whose age is geometrically distributed, cut off at the oldest; from chances [2, B]."""
        windows = np.diff(index.ends, prepend=0)
        filled = np.flatnonzero(windows)
        stream = filled[(chance[0] * len(filled)).astype(np.int64)]
        decay = -np.log(2) / self.half_life
        # the inverse of the distribution function (1 - q^(age + 1)) / (1 - q^n)
        age = np.log1p(chance[1] * np.expm1(decay * windows[stream])) / decay
        return index.ends[stream] - 1 - np.minimum(age.astype(np.int64), windows[stream] - 1)

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what tells it from a uniform sampler's; those of the run that goes on count."""
        return {**super().state_dict(), "share": self.share, "half_life": self.half_life}


make = Recent
