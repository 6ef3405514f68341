"""Which rows of a stream belong together: contiguous spans within an episode, and the windows they hold."""

import numpy as np
from numpy.typing import NDArray


class Spans:
    """Runs of consecutive rows [start, stop) of one stream, oldest first; a window fits inside one run."""

    def __init__(self) -> None:
        self._table = np.zeros((64, 2), np.int64)
        self._first = self._end = 0

    def __len__(self) -> int:
        return self._end - self._first

    @property
    def last(self) -> tuple[int, int]:
        """(start, stop) of the newest run, (0, 0) where there is none."""
        return (int(self._table[self._end - 1, 0]), int(self._table[self._end - 1, 1])) if len(self) else (0, 0)

    def extend(self, start: int, stop: int, *, new: bool) -> None:
        """Add rows [start, stop) to the newest run, or as a run of their own."""
        if not new:
            assert self.last[1] == start, (self.last, start)
            self._table[self._end - 1, 1] = stop
            return
        if self._end == len(self._table):
            live = self._table[self._first : self._end]
            self._table = np.concatenate([live, np.zeros((max(64, len(live)), 2), np.int64)])
            self._first, self._end = 0, len(live)
        self._table[self._end] = start, stop
        self._end += 1

    def forget_before(self, row: int) -> None:
        """Drop the runs that end at or before `row`."""
        while len(self) and self._table[self._first, 1] <= row:
            self._first += 1

    def forget_from(self, row: int) -> None:
        """Drop row number `row` and every later one."""
        while len(self) and self.last[0] >= row:
            self._end -= 1
        if len(self):
            self._table[self._end - 1, 1] = min(row, self.last[1])

    def live(self, tail: int) -> NDArray[np.int64]:
        """The runs as [n, 2] (start, stop), without rows before `tail`."""
        return np.maximum(self._table[self._first : self._end], tail)


class WindowIndex:
    """All windows of `length` rows inside given runs, each with the same chance; frozen once built."""

    def __init__(self, spans: NDArray[np.int64], *, length: int) -> None:
        starts, stops = spans[:, 0], spans[:, 1]
        windows = np.maximum(stops - starts - length + 1, 0)
        self._ends = np.cumsum(windows)
        # window number w of span i starts at row w + shift[i]
        self._shift = starts - (self._ends - windows)
        self.total = int(self._ends[-1]) if len(self._ends) else 0

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Runs [batch] and first rows [batch] of uniformly drawn windows; needs `total` > 0."""
        number = rng.integers(0, self.total, size=batch)
        run = np.searchsorted(self._ends, number, side="right")
        return run, number + self._shift[run]
