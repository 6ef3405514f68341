"""Windows in proportion to how wrong the model was on them: loss-adjusted prioritisation.

Fujimoto, Meger, Precup, An Equivalence between Loss Functions and Non-Uniform Sampling in Experience Replay (2020),
equation 8: p(i) = max(|error_i|^alpha, 1) / sum_j max(|error_j|^alpha, 1). No importance weights. The paper pairs it
with a Huber loss; the losses here are as they are, so windows of large error count for more than their share.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.windows import Content, ReplayEmpty
from worldmodel.limits import require_number

# a node's children fit in a cache line or two, and a million leaves are four levels high
FANOUT = 32


class Prioritised:
    """Draws a window in proportion to the priority of its first row.

    alpha: exponent of the error. A row has the largest priority given so far until its window was learned from. The
    errors of draw k count from draw k + 2 on, so that draw k + 1 can be made while the model learns from draw k.
    """

    def __init__(self, *, alpha: float = 0.4, seed: int = 0) -> None:
        require_number(alpha=alpha, least=0, most=1)
        self.alpha = alpha
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._draws, self._largest = 0, 1.0
        self._held: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        # by slot of the ring [S, ring]; float32 halves a checkpoint, and no window's rank depends on the rest
        self._priority = np.zeros((0, 0), np.float32)
        self._known = np.zeros(0, np.int64)  # the number of the next row of each stream
        self._content: Content | None = None
        self._length = 0
        self._tree = SumTree(1)

    def draw(self, content: Content, batch: int, length: int) -> NDArray[np.int64]:
        """Windows [batch, 3], each independent of the others; raises ReplayEmpty.

        Another length than the last draw's costs a pass over all rows.
        """
        if not self._priority.size:
            self._priority = np.zeros((len(content.spans), content.ring), np.float32)
            self._known = np.zeros(len(content.spans), np.int64)
        assert self._priority.shape == (len(content.spans), content.ring), (self._priority.shape, content.ring)
        self._apply(before=self._draws)
        self._follow(content, length)
        if self._tree.total == 0:
            content.index(length)
            raise ReplayEmpty(f"rows: expected a window of {length} rows with a priority, got none")
        leaf = self._tree.draw(batch, self._rng)
        stream, slot = leaf // content.ring, leaf % content.ring
        # the newest row that lies in that slot
        newest = self._known[stream] - 1
        first = newest - (newest - slot) % content.ring
        self._draws += 1
        return np.stack([np.full_like(first, self._draws), stream, first], 1)

    def feedback(self, windows: Tensor, error: Tensor) -> None:
        self._held.append((windows.numpy().copy(), error.detach().float().cpu().numpy().copy()))

    def cursor(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "draws": self._draws}

    def rewind(self, cursor: dict[str, Any]) -> None:
        """Return to an earlier state; errors that counted in a draw undone would count in it again."""
        self._rng.bit_generator.state, self._draws = cursor["rng"], cursor["draws"]

    def state_dict(self) -> dict[str, Any]:
        """Cursor, priorities and the errors that do not count yet."""
        priorities = {"priority": self._priority.copy(), "known": self._known.copy(), "largest": self._largest}
        return {**self.cursor(), **priorities, "held": [list(pair) for pair in self._held]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from an earlier state; rows that have appeared since have the largest priority."""
        self.rewind(state)
        self._priority, self._known, self._largest = state["priority"].copy(), state["known"].copy(), state["largest"]
        self._held = [(windows, error) for windows, error in state["held"]]
        self._content = None

    def _apply(self, *, before: int) -> None:
        """Turn the errors of the draws numbered below `before` into priorities."""
        due = [(windows, error) for windows, error in self._held if windows[0, 0] < before]
        self._held = self._held[len(due) :]
        for windows, error in due:
            finite = np.isfinite(error)  # nothing else can rank
            priority = np.maximum(np.abs(error[finite]) ** np.float32(self.alpha), np.float32(1))
            self._largest = float(max(self._largest, priority.max(initial=1.0)))
            self._assign(windows[finite, 1], windows[finite, 2], priority)

    def _assign(self, stream: NDArray[np.int64], first: NDArray[np.int64], priority: NDArray[np.float32]) -> None:
        """Give rows [B] their priorities [B]; those that the ring has passed since are left out."""
        ring = self._priority.shape[1]
        alive = first + ring >= self._known[stream]
        leaf, priority = (stream * ring + first % ring)[alive], priority[alive]
        self._priority.reshape(-1)[leaf] = priority
        if self._content is not None:
            self._tree.set(leaf, np.where(self._tree.weights(leaf) > 0, priority, 0.0))

    def _follow(self, content: Content, length: int) -> None:
        """Bring priorities and tree to `content`: what arrived, what became a whole window, what the ring passed."""
        seen, same = self._content, length == self._length
        if content is seen and same:
            return
        grown = seen is not None and same and content.losses == seen.losses
        if not grown:
            self._tree = SumTree(self._priority.size)
        for stream, spans in enumerate(content.spans):
            if len(spans):
                before = seen.spans[stream] if grown and seen is not None else spans[:0]
                self._follow_stream(stream, spans, before, length)
        self._content, self._length = content, length

    def _follow_stream(self, stream: int, spans: NDArray[np.int64], before: NDArray[np.int64], length: int) -> None:
        ring, known, stop = self._priority.shape[1], self._known[stream], int(spans[-1, 1])
        arrived = np.arange(max(known, stop - ring), stop)
        self._priority[stream, arrived % ring] = self._largest
        self._known[stream] = max(known, stop)
        if len(before):
            passed = np.arange(max(before[0, 0], spans[0, 0] - ring), spans[0, 0])
            self._tree.set(stream * ring + passed % ring, 0.0)
        first = starts(spans, length=length, begin=int(before[-1, 1]) - length + 1 if len(before) else 0)
        self._tree.set(stream * ring + first % ring, self._priority[stream, first % ring])


def starts(spans: NDArray[np.int64], *, length: int, begin: int = 0) -> NDArray[np.int64]:
    """First rows, `begin` or later, of all windows of `length` rows inside runs [n, 2]."""
    rows = np.arange(max(begin, spans[0, 0]), spans[-1, 1] - length + 1)
    run = np.searchsorted(spans[:, 1], rows, side="right")
    return rows[(spans[run, 0] <= rows) & (rows + length <= spans[run, 1])]


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

    def set(self, leaf: NDArray[np.int64], weight: NDArray[Any] | float) -> None:
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


make = Prioritised
