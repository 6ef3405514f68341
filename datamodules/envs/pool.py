"""Supervised environment workers: reset and step several in parallel, detect faults, restart in place."""

import os
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import checked_action
from datamodules.envs.errors import BadOption, EnvError, NotReset, WorkerFault, WorkerLost
from datamodules.envs.protocol import Fault, Step
from datamodules.envs.remote import RemoteEnv, Trouble
from worldmodel.spec import EnvSpec

_EXIT_GRACE_S = 2.0


def episode_seed(run_seed: int, rank: int, index: int, episode: int) -> int:
    """The seed in [0, 2**32) of one episode, a pure function, so a resumed run continues the same stream."""
    return int(np.random.SeedSequence([run_seed, rank, index, episode]).generate_state(1)[0])


class EnvPool:
    """`count` workers of one environment; `spec` is what all of them draw, `renderer` the GL driver.

    Each worker proves at its start, on an episode of `seed`, that it draws more than one constant colour.
    Raises what the environment's `make` raises, as the same type (UnknownTask, MissingGL, BadOption, ...),
    and WorkerLost once a worker fails more than `max_restarts` times within `restart_window_s` seconds.
    """

    def __init__(
        self,
        *,
        source: str,
        kwargs: dict[str, Any],
        visuals: Mapping[str, Any] | None = None,
        count: int,
        seed: int = 0,
        step_timeout_s: float = 30.0,
        reset_timeout_s: float = 120.0,
        max_restarts: int = 3,
        restart_window_s: float = 300.0,
    ) -> None:
        if count < 1:
            raise BadOption(f"count: expected >= 1, got {count}")
        self._config = {"source": source, "kwargs": dict(kwargs), "visuals": dict(visuals or {}), "seed": seed}
        self._step_timeout_s, self._reset_timeout_s = step_timeout_s, reset_timeout_s
        self._max_restarts, self._restart_window_s = max_restarts, restart_window_s
        self._restarts: list[deque[float]] = [deque() for _ in range(count)]
        self._faults: dict[int, Fault] = {}
        self._open: set[int] = set()
        self._workers: list[RemoteEnv] = []
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, os.getpid())
        try:
            self._start(count)
        except BaseException:
            self.close()
            raise

    def _start(self, count: int) -> None:
        # all start at once, then each is waited for
        for _ in range(count):
            self._workers.append(RemoteEnv(**self._config))
        for index, worker in enumerate(self._workers):
            try:
                worker.finish_start(timeout_s=self._reset_timeout_s)
            except Trouble as trouble:
                raise WorkerLost(f"worker {index} did not start: {trouble.kind}: {trouble}") from trouble
        self.spec: EnvSpec = self._workers[0].spec
        self.renderer: str = self._workers[0].renderer

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers, by index."""
        return tuple(worker.pid for worker in self._workers)

    def reset(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        """Open an episode in each worker of {index: seed}, in parallel; raises WorkerLost."""
        rows: dict[int, Step | Fault] = {}
        for index, seed in seeds.items():
            try:
                self._finish_restart(index)
                self._workers[index].send_reset(seed)
            except (Trouble, EnvError) as error:
                rows[index] = self._replace(index, error)
        return self._collect(list(seeds), rows, self._reset_timeout_s)

    def step(self, actions: dict[int, NDArray[np.float32]]) -> dict[int, Step | Fault]:
        """Advance each worker of {index: action [A]}, in parallel; raises BadAction, NotReset or WorkerLost.

        A worker that has failed keeps returning its Fault until it is reset.
        """
        ready = {index: checked_action(action, action_dim=self.spec.action_dim) for index, action in actions.items()}
        rows: dict[int, Step | Fault] = {index: self._faults[index] for index in ready if index in self._faults}
        if closed := ready.keys() - rows.keys() - self._open:
            raise NotReset(f"step: expected a reset first, no episode is open in workers {sorted(closed)}")
        for index, action in ready.items():
            if index in rows:
                continue
            try:
                self._workers[index].send_step(action)
            except Trouble as trouble:
                rows[index] = self._replace(index, trouble)
        return self._collect(list(ready), rows, self._step_timeout_s)

    def render(self, index: int, size: int) -> NDArray[np.uint8]:
        """Draw worker `index` as uint8 [size, size, 3]; raises BadOption, WorkerFault or WorkerLost."""
        if not 1 <= size <= wire.RENDER_LIMIT:
            raise BadOption(f"size: expected 1..{wire.RENDER_LIMIT}, got {size}")
        if index not in self._faults:
            try:
                return self._workers[index].render(size, deadline=time.monotonic() + self._step_timeout_s)
            except Trouble as trouble:
                self._replace(index, trouble)
        fault = self._faults[index]
        raise WorkerFault(f"worker {index}: {fault.kind}: {fault.message}")

    def close(self) -> None:
        """End all workers; safe to call twice, and called at interpreter exit."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _collect(self, order: list[int], rows: dict[int, Step | Fault], timeout_s: float) -> dict[int, Step | Fault]:
        # one after the other costs nothing: all work at the same time, and every answer is needed
        deadline = time.monotonic() + timeout_s
        for index in order:
            if index in rows:
                continue
            try:
                rows[index] = step = self._workers[index].receive_step(deadline=deadline)
                (self._open.discard if step.is_last else self._open.add)(index)
            except Trouble as trouble:
                rows[index] = self._replace(index, trouble)
        return {index: rows[index] for index in order}

    def _finish_restart(self, index: int) -> None:
        if index not in self._faults:
            return
        worker = self._workers[index]
        worker.finish_start(timeout_s=self._reset_timeout_s)
        if worker.spec != self.spec:
            raise Trouble("spec", f"expected {self.spec} after a restart, got {worker.spec}")
        del self._faults[index]

    def _replace(self, index: int, error: Trouble | EnvError) -> Fault:
        kind = error.kind if isinstance(error, Trouble) else "start"
        self._faults[index] = fault = Fault(index=index, kind=kind, message=str(error))
        self._open.discard(index)
        self._workers[index].kill()
        self._count_restart(fault)
        # not waited for: the other workers go on while this one starts
        self._workers[index] = RemoteEnv(**self._config)
        return fault

    def _count_restart(self, fault: Fault) -> None:
        times, now = self._restarts[fault.index], time.monotonic()
        times.append(now)
        while now - times[0] > self._restart_window_s:
            times.popleft()
        if len(times) > self._max_restarts:
            raise WorkerLost(
                f"worker {fault.index} failed {len(times)} times in {self._restart_window_s:g} s; "
                f"the last time: {fault.kind}: {fault.message}"
            )


def _shut_down(workers: list[RemoteEnv], owner: int) -> None:
    # a forked copy of this process must not end its parent's workers
    if os.getpid() != owner:
        return
    deadline = time.monotonic() + _EXIT_GRACE_S
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.kill(grace_s=max(deadline - time.monotonic(), 0.0))
