"""A simulated robot in real time: a camera that shows a frame every period, an actuator that takes what has come.

The environment lives in a process of its own. A frame's action is taken until the decision's time is over; one that
has not come by then is missing, and the last one acts again. The scene does not wait longer.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.images import area_resized
from datamodules.envs.protocol import Fault, Pool, Step
from datamodules.observation import Observation


@dataclass(frozen=True, slots=True)
class Capture:
    """What a camera delivers: images [height, width, c] and vectors by name, its number, and when it was taken."""

    observation: dict[str, NDArray[Any]]
    sequence: int
    stamp: float
    is_last: bool = False


@dataclass(slots=True)
class Played:
    """An episode as the robot saw it: decisions without an action in time, and frames that came late by themselves.

    finished: it was played to its end, without a fault and without being broken off.
    """

    total_return: float = 0.0
    decisions: int = 0
    missing: int = 0
    overruns: int = 0
    fault: str = ""
    finished: bool = False


class Robot:
    """Plays one episode in a thread; frames are taken with `next_frame`, actions given with `act`.

    Args:
        pool: with one environment.
        period_s: between two frames.
        budget_s: from a frame to its action.
        delay: decisions by which the actuator is late.
        camera: (height, width) of the delivered frames, resized from the environment's; None as they are.
    """

    def __init__(
        self, pool: Pool, *, period_s: float, budget_s: float, delay: int = 0, camera: tuple[int, int] | None = None
    ) -> None:
        self._pool, self._period_s, self._budget_s = pool, period_s, budget_s
        self._camera = camera
        self._change = threading.Condition()
        self._frame: Capture | None = None
        self._action: tuple[int, NDArray[np.float32]] | None = None
        self._queue = deque([np.zeros(pool.spec.action_dim, np.float32)] * (delay + 1), maxlen=delay + 1)
        self._broken_off = threading.Event()
        self.played = Played()
        self._thread: threading.Thread | None = None

    def begin(self, seed: int) -> None:
        """Open an episode; its first frame comes when the environment has drawn it."""
        self._thread = threading.Thread(target=self._guarded, args=(seed,), daemon=True)
        self._thread.start()

    def next_frame(self, after: int, timeout_s: float) -> Capture | None:
        """The first frame whose number is above `after`, or None where none comes within the time."""
        with self._change:
            self._change.wait_for(lambda: self._frame is not None and self._frame.sequence > after, timeout_s)
            frame = self._frame
        return frame if frame is not None and frame.sequence > after else None

    def act(self, sequence: int, action: NDArray[np.float32]) -> None:
        """The action [A] in [-1, 1] for a frame; too late for its frame, it is not taken."""
        with self._change:
            self._action = (sequence, action)
            self._change.notify_all()

    def end(self, *, break_off: bool = False) -> Played:
        """Wait until the episode is over; `break_off` ends it with the decision under way."""
        if break_off:
            with self._change:
                self._broken_off.set()
                self._change.notify_all()
        assert self._thread is not None
        self._thread.join()
        return self.played

    def _guarded(self, seed: int) -> None:
        try:
            self._play(seed)
        except Exception as error:  # noqa: BLE001 - the other thread must hear of it
            self.played.fault = f"{type(error).__name__}: {error}"
        finally:
            self._show(Capture({}, 2**62, time.monotonic(), is_last=True))

    def _play(self, seed: int) -> None:
        row = self._answer(lambda: self._pool.reset({0: seed}))
        tick, sequence = time.monotonic(), 0
        while row is not None and not row.is_last and not self._broken_off.is_set():
            stamp = time.monotonic()
            self._show(Capture(self._delivered(row.observation), sequence, stamp))
            command = self._wait(sequence, tick + self._budget_s)
            self.played.missing += command is None
            self._queue.append(self._queue[-1] if command is None else command)
            acting = self._queue[0]
            row = self._answer(lambda acting=acting: self._pool.step({0: acting}))  # type: ignore[misc]
            if row is not None:
                self.played.total_return += row.reward
                self.played.decisions += 1
            tick, sequence = tick + self._period_s, sequence + 1
            now = time.monotonic()
            if now > tick:
                self.played.overruns += 1
                tick = now
            self._broken_off.wait(max(0.0, tick - now))
        self.played.finished = row is not None and row.is_last

    def _wait(self, sequence: int, until: float) -> NDArray[np.float32] | None:
        with self._change:
            self._change.wait_for(
                lambda: self._broken_off.is_set() or (self._action is not None and self._action[0] == sequence),
                max(0.0, until - time.monotonic()),
            )
            return self._action[1] if self._action is not None and self._action[0] == sequence else None

    def _answer(self, ask: Callable[[], dict[int, Step | Fault]]) -> Step | None:
        rows = ask()
        while 0 not in rows:
            rows = self._pool.step({})
        row = rows[0]
        if isinstance(row, Fault):
            self.played.fault = f"{row.kind}: {row.message}"
            return None
        return row

    def _show(self, frame: Capture) -> None:
        with self._change:
            self._frame = frame
            self._change.notify_all()

    def _delivered(self, observation: Observation) -> dict[str, NDArray[Any]]:
        def frame(image: NDArray[Any]) -> NDArray[Any]:
            seen = image if self._camera is None else area_resized(image, *self._camera)
            return np.ascontiguousarray(seen.transpose(1, 2, 0))

        return {name: frame(rows) if rows.dtype == np.uint8 else rows for name, rows in observation.items()}
