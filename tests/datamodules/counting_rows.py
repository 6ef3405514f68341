"""Rows that carry their own number in pixels, reward and action, so that whatever is served can be checked."""

from dataclasses import dataclass, field

import numpy as np

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="count", images={"pixels": (3, 4, 4)}, action_dim=2, action_repeat=2, episode_steps=20)


@dataclass
class Row:
    """What one stored row must look like when it is served."""

    mark: int
    episode: int
    action: float
    is_first: bool
    is_last: bool
    is_terminal: bool


@dataclass
class Counter:
    """A counting environment: every row carries its own number in its pixels, its reward and its action."""

    replay: Replay
    stream: int = 0
    rows: list[Row] = field(default_factory=list)
    episode: int = 0

    def step(self, *, first: bool = False, last: bool = False, terminal: bool = False) -> None:
        mark = len(self.rows)
        self.episode += first
        row = Row(mark, self.episode, 0.0 if first else mark % 97 / 97, first, last, terminal)
        step = Step({"pixels": self.pixels(mark)}, float(mark), first, last, terminal, 0 if first else 2)
        self.replay.append(self.stream, step, np.full(2, row.action, np.float32))
        self.rows.append(row)

    def pixels(self, mark: int) -> np.ndarray:
        head = np.array([mark, self.stream], "<u4").view(np.uint8)
        return np.concatenate([head, np.full(40, mark % 251, np.uint8)]).reshape(3, 4, 4)

    def play(self, length: int, *, last: bool = True) -> None:
        for t in range(length):
            self.step(first=t == 0, last=last and t == length - 1)


def marks(batch) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers [B, T], streams [B]) written in the pixels, every pixel being checked."""
    B, T = batch.pixels.shape[:2]
    flat = batch.pixels.reshape(B, T, -1).numpy()
    head = np.ascontiguousarray(flat[..., :8]).view("<u4")
    assert (flat[..., 8:] == head[..., :1] % 251).all()
    return head[..., 0], head[:, 0, 1]


def check(batch, counters: list[Counter], *, across: bool = False) -> None:
    """Compare a batch with the slow reference, row by row."""
    numbers, streams = marks(batch)
    assert (np.diff(numbers, axis=1) == 1).all()
    for b, (window, stream) in enumerate(zip(numbers, streams, strict=True)):
        rows = [counters[stream].rows[mark] for mark in window]
        assert across or len({row.episode for row in rows}) == 1
        assert batch.reward[b].tolist() == [row.mark for row in rows]
        assert batch.action[b].tolist() == [[np.float32(row.action)] * 2 for row in rows]
        for key in ("is_first", "is_last", "is_terminal"):
            assert getattr(batch, key)[b].tolist() == [getattr(row, key) for row in rows], key


def served(replay: Replay) -> set[int]:
    """Numbers of all rows that can be sampled (one stream)."""
    return set(marks(replay.sample(40 * replay.rows, 1))[0].reshape(-1).tolist()) if replay.rows else set()


def windows(rows: list[Row], length: int, *, first: int = 0) -> set[int]:
    starts = range(first, len(rows) - length + 1)
    return {i for i in starts if rows[i].episode == rows[i + length - 1].episode}


def abandon(replay: Replay) -> None:
    """What the death of the process does: locks and files go, nothing is flushed."""
    for stream in replay._streams:
        if stream.log:
            stream.log.close()
    replay._leave()
