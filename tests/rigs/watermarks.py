"""Rows that say in their pixels who they are, and a replay's life full of accidents to store them in."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="watermarks", images={"pixels": (3, 8, 8)}, action_dim=2, action_repeat=2, episode_steps=400)
_PATTERN = np.arange(3 * 8 * 8 - 12, dtype=np.int64)


def frames(mark: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames [..., 3, 8, 8] of marks [..., 3] (stream, row, episode): 12 bytes of digits, then bytes made from them."""
    digits = np.ascontiguousarray(mark.astype("<u4")).view(np.uint8)
    rest = (_PATTERN * 31 + mark[..., :1] * 101 + mark[..., 1:2] * 7 + mark[..., 2:] * 13) % 251
    return np.concatenate([digits, rest.astype(np.uint8)], -1).reshape(*mark.shape[:-1], *SPEC.pixels)


def marks(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The digits [..., 3] of frames [..., 3, 8, 8]."""
    flat = pixels.reshape(*pixels.shape[:-3], -1)[..., :12]
    return np.ascontiguousarray(flat).view("<u4").astype(np.int64)


def actions(mark: NDArray[np.int64], is_first: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Actions [..., 2] of marks, zero in an opening row."""
    both = np.stack([mark[..., 1] % 97 / 97, -(mark[..., 2] % 89) / 89], -1).astype(np.float32)
    return np.where(is_first[..., None], np.float32(0), both)


def rewards(mark: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rewards [...] of marks."""
    return (mark[..., 1] % 4093 + 0.25 * mark[..., 0]).astype(np.float32)


def wrong_rows(batch: Batch) -> NDArray[np.bool_]:
    """Rows [B, T] of a batch that are not what their own mark says, or that do not follow the row before."""
    pixels = batch.pixels.numpy()
    mark = marks(pixels)
    wrong = (frames(mark) != pixels).any((2, 3, 4))
    wrong |= (actions(mark, batch.is_first.numpy()) != batch.action.numpy()).any(2)
    wrong |= rewards(mark) != batch.reward.numpy()
    # the same stream and episode, the next row
    wrong[:, 1:] |= (np.diff(mark, axis=1) != (0, 1, 0)).any(2)
    wrong[:, 1:] |= batch.is_first.numpy()[:, 1:] | batch.is_last.numpy()[:, :-1]
    return wrong


class Life:
    """Fills a replay with episodes that end in every way; `reopen` gives the replay back after the process died."""

    def __init__(self, reopen: Callable[[], Replay], *, seed: int) -> None:
        self._reopen, self._rng = reopen, np.random.default_rng(seed)
        self.replay, self._episode = reopen(), 0

    def fill(self, rows: int) -> None:
        """At least `rows` more in every stream."""
        goal = [number + rows for number in self.replay.next_rows]
        while any(now < then for now, then in zip(self.replay.next_rows, goal, strict=True)):
            for stream, then in enumerate(goal):
                if self.replay.next_rows[stream] < then:
                    self.episode(stream)
            if self._rng.random() < 0.02:
                self.restart()

    def episode(self, stream: int) -> None:
        """One that terminates, ends by time, is cut short by a fault, is dropped, or is open when the process ends."""
        self._episode += 1
        length, end = int(self._rng.integers(1, 200)), self._rng.random()
        for t in range(length):
            last = t == length - 1 and end < 0.6
            self._append(stream, first=t == 0, last=last, terminal=last and end < 0.3)
        if end < 0.6:
            return
        if end < 0.8:
            self.replay.truncate(stream)
        elif end < 0.95:
            self.replay.discard_open()
        else:
            self.restart()
            self.replay.truncate(stream)

    def restart(self) -> None:
        """Close the replay and open what is on disk, or roll back to a state from just before."""
        state = self.replay.state_dict()
        if self._rng.random() < 0.5:
            for stream in range(len(self.replay.next_rows)):
                self.replay.truncate(stream)
            self._episode += 1
            for t in range(5):
                self._append(0, first=t == 0, last=t == 4, terminal=False)
        self.replay.close()
        self.replay = self._reopen()
        self.replay.load_state_dict(state)

    def _append(self, stream: int, *, first: bool, last: bool, terminal: bool) -> None:
        mark = np.array([stream, self.replay.next_rows[stream], self._episode])
        step = Step({"pixels": frames(mark)}, float(rewards(mark)), first, last, terminal, 0 if first else 2)
        self.replay.append(stream, step, actions(mark, np.array(first)))
