"""Which rows of a stream belong together: contiguous spans within an episode, the windows they hold, who draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.storage.rows import ReplayMismatch
from worldmodel.errors import UserError


class ReplayEmpty(UserError):
    """No window of the requested length is stored; names the rows needed and stored."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What can be sampled at one moment: the runs of rows [n, 2] (start, stop) of every stream, oldest first.

    A row's number never comes again within its stream; row n lies in slot n % ring. losses: grows when rows vanish in
    another way than by the ring's turn.
    """

    spans: tuple[NDArray[np.int64], ...]
    ring: int
    losses: int

    def index(self, length: int) -> "WindowIndex":
        """All windows of `length` rows; raises ReplayEmpty where there is none."""
        index = WindowIndex(self.spans, length=length)
        if index.total == 0:
            rows = sum(int((spans[:, 1] - spans[:, 0]).sum()) for spans in self.spans)
            raise no_window(length, rows=rows, longest=self.longest)
        return index

    def count_rows(self, length: int) -> int:
        """Rows of all runs of at least `length` rows."""
        sizes = np.concatenate([spans[:, 1] - spans[:, 0] for spans in self.spans])
        return int(sizes[sizes >= length].sum())

    def joined(self) -> "Content":
        """The same rows, with a run that begins where another ends as one: windows may run over ends of episodes."""
        return Content(tuple(_joined(spans) for spans in self.spans), self.ring, self.losses)

    @property
    def longest(self) -> int:
        """Rows of the longest run."""
        return max((int((spans[:, 1] - spans[:, 0]).max(initial=0)) for spans in self.spans), default=0)


def _joined(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(spans):
        return spans
    # where rows were lost or discarded, their numbers are missing
    apart = np.flatnonzero(spans[1:, 0] != spans[:-1, 1]) + 1
    return np.stack([spans[np.append(0, apart), 0], spans[np.append(apart, len(spans)) - 1, 1]], 1)


def no_window(length: int, *, rows: int, longest: int) -> ReplayEmpty:
    """The error that of `rows` rows, `longest` of them in the longest episode, none begins a window of `length`."""
    got = f"got {rows} rows in all, {longest} of them in the longest episode"
    hint = f": set data.length={longest} or less" if 2 <= longest < length else ""
    return ReplayEmpty(f"rows: expected {length} consecutive rows of an episode, {got}{hint}")


class WindowIndex:
    """All windows of `length` rows inside the runs of several streams, numbered by stream and age; frozen once built.

    total: their number. ends [S]: the number of the first window beyond each stream's.
    """

    def __init__(self, streams: Sequence[NDArray[np.int64]], *, length: int) -> None:
        starts, stops = np.concatenate(streams).T
        windows = np.maximum(stops - starts - length + 1, 0)
        self._ends = np.cumsum(windows)
        # window number w of span i starts at row w + shift[i]
        self._shift = starts - (self._ends - windows)
        runs = np.cumsum([len(spans) for spans in streams])
        self._stream = np.repeat(np.arange(len(streams)), [len(spans) for spans in streams])
        self.ends = np.concatenate([[0], self._ends])[runs]
        self.total = int(self.ends[-1])

    def locate(self, number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Streams [B] and first rows [B] of the windows with these numbers [B], each below `total`."""
        run = np.searchsorted(self._ends, number, side="right")
        return self._stream[run], number + self._shift[run]


@runtime_checkable
class Sampler(Protocol):
    """Chooses windows; where their bytes are is none of its business.

    A window is named by three integers: the number of the draw that chose it, its stream, and its first row. The owner
    of the rows calls one method at a time.
    """

    def draw(self, content: Content, batch: int, length: int) -> NDArray[np.int64]:
        """The names [batch, 3] of windows of `length` rows of `content`; raises ReplayEmpty."""

    def feedback(self, windows: Tensor, error: Tensor) -> None:
        """Take in the model's error [B] on windows [B, 3] of an earlier draw, on any device."""

    def cursor(self) -> dict[str, Any]:
        """Where the sequence of draws stands, small and JSON-able."""

    def rewind(self, cursor: dict[str, Any]) -> None:
        """Undo the draws since `cursor` was taken: on the same content the same windows come again."""

    def state_dict(self) -> dict[str, Any]:
        """The cursor and whatever else decides on later draws, of plain values and arrays."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; the rows are those of the moment when it was taken, less what the disk lost."""


def require_same_sampler(sampler: Sampler, state: dict[str, Any]) -> None:
    """Raise ReplayMismatch where `state` is another kind of sampler's."""
    if state.keys() != sampler.state_dict().keys():
        name = type(sampler).__name__.lower()
        raise ReplayMismatch(f"data.sampler: expected {name} as in this run, got a checkpoint of another sampler")
