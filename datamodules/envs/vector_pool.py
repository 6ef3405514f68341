"""Lanes in one supervised worker, as a pool: what fails them fails all of them."""

import math
import os
import select
import time
import weakref
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import checked_action
from datamodules.envs.errors import BadOption, NotReset, WorkerFault
from datamodules.envs.pool import START_RANK, episode_seed, shut_down
from datamodules.envs.pool_options import PoolOptions
from datamodules.envs.protocol import Fault, Step
from datamodules.envs.remote_lanes import RemoteLanes
from datamodules.envs.supervised import Supervised
from worldmodel.spec import EnvSpec


class VectorPool:
    """`count` lanes of a source with `make_lanes`, in one worker; options and errors are those of EnvPool.

    A time-out, a death, an exception or a row that the spec does not allow is a Fault of every lane that was asked or
    had an episode under way, and counts as one restart. A call is answered for all lanes at once, so no lane is late.
    """

    def __init__(self, **options: Any) -> None:
        self._options = PoolOptions(**options)
        self._faults: dict[int, Fault] = {}
        self._open: set[int] = set()
        limit = self._options.fault_limit()
        self._envs: list[Supervised] = []
        self._finalizer = weakref.finalize(self, shut_down, self._envs, os.getpid())
        try:
            self._envs.append(Supervised(0, start=self._launch, options=self._options, limit=limit))
            self._worker.finish_start()
        except BaseException:
            self.close()
            raise
        self.spec: EnvSpec = self._worker.spec
        self.renderer: str = self._worker.worker.renderer

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id of the worker."""
        return (self._worker.worker.pid,)

    def reset(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        """Open an episode in each lane of {lane: seed}; raises WorkerLost. vector.py says what a seed does."""
        if not seeds:
            return {}
        for lane in seeds:
            self._faults.pop(lane, None)
        self._worker.ask_reset(seeds)
        return self._answer(list(seeds))

    def step(self, actions: dict[int, NDArray[np.float32]]) -> dict[int, Step | Fault]:
        """Advance each lane of {lane: action [A]}; raises BadAction, NotReset or WorkerLost.

        Lanes cannot wait: an episode under way that gets no action is given up, its lane needs a reset. A lane that
        has failed keeps returning its Fault until then.
        """
        ready = {lane: checked_action(action, action_dim=self.spec.action_dim) for lane, action in actions.items()}
        running = {lane: action for lane, action in ready.items() if lane not in self._faults}
        if closed := running.keys() - self._open:
            raise NotReset(f"step: expected a reset first, no episode is open in lanes {sorted(closed)}")
        rows: dict[int, Step | Fault] = {lane: self._faults[lane] for lane in ready if lane in self._faults}
        if running:
            self._open = set(running)
            self._worker.ask_step(running)
            rows |= self._answer(list(running))
        return rows

    def render(self, index: int, size: int) -> NDArray[np.uint8]:
        """Draw lane `index` as uint8 [size, size, 3]; raises BadOption, WorkerFault or WorkerLost."""
        if not 1 <= size <= wire.RENDER_LIMIT:
            raise BadOption(f"size: expected 1..{wire.RENDER_LIMIT}, got {size}")
        frame = self._worker.render(size, lane=index)
        if frame is None:
            assert self._worker.fault is not None
            raise WorkerFault(f"lane {index}: {self._worker.fault.kind}: {self._worker.fault.message}")
        return frame

    def close(self) -> None:
        """End the worker; safe to call twice, and called at interpreter exit."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _worker(self) -> Supervised:
        return self._envs[0]

    def _launch(self, restarts: int) -> RemoteLanes:
        config = self._options.worker_config(lanes=self._options.count)
        return RemoteLanes(config=config, seed=episode_seed(self._options.seed, START_RANK, 0, restarts))

    def _answer(self, asked: list[int]) -> dict[int, Step | Fault]:
        answer = self._worker.answer(time.monotonic())
        while answer is None:
            self._wait()
            answer = self._worker.answer(time.monotonic())
        if isinstance(answer, Fault):
            failed = {lane: Fault(lane, answer.kind, answer.message) for lane in {*asked, *self._open}}
            self._faults |= failed
            self._open.clear()
            return {lane: failed[lane] for lane in asked}
        self._open |= answer.keys()
        self._open -= {lane for lane, row in answer.items() if row.is_last}
        return dict(answer)

    def _wait(self) -> None:
        # registered anew each time: a restart has another socket
        poll = select.poll()
        poll.register(self._worker.worker.fileno, select.POLLIN)
        poll.poll(math.ceil(max(self._worker.deadline - time.monotonic(), 0.0) * 1000) + 1)
