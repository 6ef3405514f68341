"""Every window with the same chance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.windows import Content, WindowIndex


class Uniform:
    """Draws all windows of a length alike, whatever was learned from them."""

    def __init__(self, *, seed: int = 0) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._content: Content | None = None
        self._index: dict[int, WindowIndex] = {}

    def draw(self, content: Content, batch: int, length: int) -> NDArray[np.int64]:
        """Windows [batch, 3], each independent of the others; raises ReplayEmpty."""
        if content is not self._content:
            self._content, self._index = content, {}
        if length not in self._index:
            self._index[length] = content.index(length)
        index = self._index[length]
        stream, first = index.locate(self._choose(index, batch))
        return np.stack([np.zeros_like(first), stream, first], 1)

    def _choose(self, index: WindowIndex, batch: int) -> NDArray[np.int64]:
        """Numbers [batch] of windows."""
        return self._rng.integers(0, index.total, size=batch)

    def feedback(self, windows: Tensor, error: Tensor) -> None:
        """Nothing: what was learned from a window does not count."""

    def cursor(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state}

    def rewind(self, cursor: dict[str, Any]) -> None:
        self._rng.bit_generator.state = cursor["rng"]

    def state_dict(self) -> dict[str, Any]:
        return self.cursor()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rewind(state)


make = Uniform
