"""Only the newest half of all windows."""

from datamodules.samplers.uniform import Uniform
from worldmodel.errors import BadValue


class Newest(Uniform):
    def __init__(self, *, share: float = 0.5, seed: int = 0):
        super().__init__(seed=seed)
        if not 0 < share <= 1:
            raise BadValue(f"share: expected a number above 0 and at most 1, got {share}")
        self.share = share

    def _choose(self, index, batch):
        return self._rng.integers(int(index.total * (1 - self.share)), index.total, size=batch)


make = Newest
