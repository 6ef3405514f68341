"""One environment of a pool, whatever becomes of its workers: ask, look for the answer, replace what failed."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption, Diverged, EnvError, NotReset, WorkerFault, WorkerLost
from datamodules.envs.protocol import Fault, Step
from datamodules.envs.remote import Remote, Trouble
from datamodules.envs.wire import Reply
from worldmodel.spec import EnvSpec


class FaultLimit:
    """Allows each environment `most` faults within `window_s` seconds; simulations that blow up are no such faults."""

    def __init__(self, *, most: int = 3, window_s: float = 300.0) -> None:
        self._most, self._window_s = most, window_s
        self._times: defaultdict[int, deque[float]] = defaultdict(deque)

    def count(self, fault: Fault) -> None:
        """Count a fault; raises WorkerLost with this last cause when its environment had too many."""
        if fault.kind == Diverged.kind:
            return
        times, now = self._times[fault.index], time.monotonic()
        times.append(now)
        while now - times[0] > self._window_s:
            times.popleft()
        if len(times) > self._most:
            error = WorkerLost(
                f"environment {fault.index} failed {len(times)} times in {self._window_s:g} s; "
                f"the last time: {fault.kind}: {fault.message}"
            )
            error.trace = fault.trace
            raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """`count` environments that `source`'s make builds from `kwargs`, seen through `visuals`; raises BadOption.

    A worker is lost once it fails more than `max_restarts` times within `restart_window_s` seconds. It proves at its
    start, on an episode of its own, that it draws more than one constant colour; later, `blank_frames` such frames in
    a row are a fault, and so are equal frames while `frozen_frames` different states go by in an environment that
    tells its state (0: never).
    """

    source: str
    kwargs: Mapping[str, Any]
    visuals: Mapping[str, Any] | None = None
    count: int
    seed: int = 0
    step_timeout_s: float = 30.0
    reset_timeout_s: float = 120.0
    max_restarts: int = 3
    restart_window_s: float = 300.0
    blank_frames: int = 5
    frozen_frames: int = 20

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadOption(f"expected >= 1, got {self.count}", key="count")

    def worker_config(self, *, lanes: int) -> dict[str, Any]:
        """What a worker is told; lanes: 0 for a single environment."""
        return {
            "source": self.source,
            "kwargs": dict(self.kwargs),
            "visuals": dict(self.visuals or {}),
            "blank_frames": self.blank_frames,
            "frozen_frames": self.frozen_frames,
            "lanes": lanes,
        }


class Supervised:
    """Environment `index`, or the lanes of one worker, which `start(restarts)` launches.

    No method waits for a worker, but `finish_start`. options: how long an answer may take. limit: counts the faults.
    asked, deadline: when the last request was made, and until when it must be answered. late: a call returned without
    the answer. A worker that fails is replaced at once; the environment answers with the Fault until it is reset, and
    starts in the background. One whose simulation blew up goes on: its episode is over.
    """

    def __init__(self, index: int, *, start: Callable[[int], Remote], options: PoolOptions, limit: FaultLimit) -> None:
        self.index, self._start, self._options, self._limit = index, start, options, limit
        self._restarts = self._decisions = 0
        self._spec: EnvSpec | None = None
        self.fault: Fault | None = None
        self.late = self._is_open = self._awaited = False
        self.asked = 0.0
        self._launch()

    @property
    def spec(self) -> EnvSpec:
        """What the first worker drew; every later one must draw the same."""
        assert self._spec is not None, "finish_start comes first"
        return self._spec

    def finish_start(self) -> None:
        """Wait for the first worker; raises its own typed EnvError, or WorkerLost."""
        try:
            self._accept(self.worker.receive(self.deadline))
        except Trouble as trouble:
            raise WorkerLost(f"worker {self.index} did not start: {trouble.kind}: {trouble}") from trouble

    def ask_reset(self, seeds: dict[int, int]) -> None:
        """Ask for an episode in each lane of {lane: seed}, as soon as the worker has started."""
        self._expect_answer(seeds)
        if self._starting:
            return
        try:
            self._send_reset()
        except Trouble as trouble:
            self._replace(trouble)

    def ask_step(self, actions: dict[int, NDArray[np.float32]]) -> None:
        """Ask for a step with checked actions {lane: [A]}; raises NotReset."""
        if self.fault is not None:
            return
        if not self._is_open:
            raise NotReset(f"step: expected a reset first, no episode is open in worker {self.index}")
        self._expect_answer(None)
        self.deadline = self.asked + self._options.step_timeout_s
        try:
            self.worker.send_step(actions, deadline=self.deadline)
        except Trouble as trouble:
            self._replace(trouble)

    def answer(self, now: float) -> dict[int, Step] | Fault | None:
        """The rows by lane or the fault that was asked for, None while there is none; raises WorkerLost."""
        try:
            rows = None if self.fault is not None else self._rows(now)
        except (Trouble, EnvError) as error:
            if not self._give_up_episode(error):
                self._replace(error)
            rows = None
        return self.fault or rows

    def render(self, size: int, *, lane: int = 0) -> NDArray[np.uint8] | None:
        """A frame [size, size, 3] of the present state, None after a fault; raises WorkerFault while it is busy."""
        if self.fault is None:
            if self._awaited:
                state = "starts again" if self._starting else "has not answered yet"
                raise WorkerFault(f"worker {self.index} {state}: there is no frame to draw")
            try:
                deadline = time.monotonic() + self._options.step_timeout_s
                return self.worker.render(size, deadline=deadline, lane=lane)
            except Trouble as trouble:
                self._replace(trouble)
        return None

    def _expect_answer(self, seeds: dict[int, int] | None) -> None:
        # supersedes a request that was broken off, by Ctrl-C for example
        self._seeds, self.asked = seeds, time.monotonic()
        self._decisions = 0 if seeds is not None else self._decisions + 1
        self.late, self.fault, self._awaited = False, None, True

    def _rows(self, now: float) -> dict[int, Step] | None:
        reply = self.worker.take()
        if reply is None:
            if now > self.deadline:
                raise Trouble("timeout", f"no answer within {now - self.asked:.3g} s")
            return None
        if self._starting:
            self._accept(reply)
            self._send_reset()
            return None
        rows = self.worker.read_rows(reply)
        self._is_open, self._awaited = not all(row.is_last for row in rows.values()), False
        return rows

    def _accept(self, reply: Reply) -> None:
        self.worker.accept(reply)
        for fact, expected, got in self._spec.differences(self.worker.spec) if self._spec is not None else ():
            raise Trouble("spec", f"{fact}: expected {expected} after a restart, got {got}")
        self._spec, self._starting = self.worker.spec, False

    def _send_reset(self) -> None:
        assert self._seeds is not None
        self.deadline = time.monotonic() + self._options.reset_timeout_s
        self.worker.send_reset(self._seeds, deadline=self.deadline)

    def _launch(self) -> None:
        # not waited for: the other workers go on while this one starts
        self.worker, self._starting = self._start(self._restarts), True
        self.deadline = time.monotonic() + self._options.reset_timeout_s

    def _replace(self, error: Trouble | EnvError) -> None:
        kind = error.kind if isinstance(error, Trouble) else "start"
        fault = self._fail("exception" if kind == Diverged.kind else kind, error)
        self.worker.kill()
        self._limit.count(fault)
        self._restarts += 1
        self._launch()

    def _give_up_episode(self, error: Trouble | EnvError) -> bool:
        """Whether a fault ends an episode alone: its simulation blew up, and not at once, as it would for ever."""
        if error.kind != Diverged.kind or self._decisions < 2:
            return False
        self._fail(error.kind, error)
        return True

    def _fail(self, kind: str, error: Trouble | EnvError) -> Fault:
        self.fault = Fault(index=self.index, kind=kind, message=str(error), trace=error.trace)
        self._is_open = self._awaited = False
        return self.fault
