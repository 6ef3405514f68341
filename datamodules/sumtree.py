"""Draws in proportion to weights: a tree of sums as one array per level, for batches of draws and of changes."""

import numpy as np
from numpy.typing import NDArray

# a node's children fit in a cache line or two, and a million leaves are four levels high
FANOUT = 32


class SumTree:
    """Weights [size], each at least 0; every node above holds the running sum of its children.

    A node is a function of its children alone, so that the tree depends on the weights and not on their history.
    """

    def __init__(self, size: int) -> None:
        sizes = [-(-size // FANOUT)]
        while sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // FANOUT))
        # level 0 holds the weights, the last one node's children
        self._levels = [np.zeros((count, FANOUT)) for count in sizes]

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(np.cumsum(self._levels[-1][0])[-1])

    def weights(self, leaf: NDArray[np.int64]) -> NDArray[np.float64]:
        """The weights of leaves [B]."""
        return self._levels[0].reshape(-1)[leaf]

    def set(self, leaf: NDArray[np.int64], weight: NDArray[np.float64] | float) -> None:
        """Set the weights [B] of leaves [B]; of a leaf that is named twice the last counts."""
        self._levels[0].reshape(-1)[leaf] = weight
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            leaf = np.unique(leaf // FANOUT)
            # as `draw` adds them up, so that no draw falls between the last child and the sum
            above.reshape(-1)[leaf] = np.cumsum(below[leaf], axis=1)[:, -1]

    def draw(self, batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Leaves [batch], each drawn in proportion to the weights; one of weight 0 never. Needs `total` > 0."""
        rest = rng.random(batch) * self.total
        node = np.zeros(batch, np.int64)
        for level in reversed(self._levels):
            ends = np.cumsum(level[node], axis=1)
            # rounding must not reach the end: below it the child found has a weight
            rest = np.minimum(rest, np.nextafter(ends[:, -1], 0.0))
            child = (ends <= rest[:, None]).sum(1)
            rest -= np.where(child > 0, ends[np.arange(batch), child - 1], 0.0)
            node = node * FANOUT + child
        return node
