"""Pools of supervised workers: an environment each, where none waits long for one that is late, or lanes in one."""

import math
import os
import select
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import checked_action
from datamodules.envs.errors import BadOption, NotReset, WorkerFault
from datamodules.envs.protocol import Fault, Step
from datamodules.envs.remote import Remote
from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.envs.supervised import FaultLimit, PoolOptions, Supervised
from worldmodel.spec import EnvSpec

_EXIT_GRACE_S = 2.0


class Patience:
    """How long a call waits for the last answers: three times what they usually take, within `least` and `most` s."""

    def __init__(self, *, least: float = 0.1, most: float = 5.0) -> None:
        self._least, self._most = least, most
        self._usual: float | None = None

    @property
    def seconds(self) -> float:
        """The wait, measured from the call; the longest until something is known."""
        return self._most if self._usual is None else min(max(3 * self._usual, self._least), self._most)

    def learn(self, seconds: float) -> None:
        """Take note of the age of a call's last answer, or of a late one."""
        self._usual = seconds if self._usual is None else 0.9 * self._usual + 0.1 * seconds


class WorkerPool:
    """What every pool is: supervised workers that end with it. Options are those of PoolOptions.

    `spec` is what all of them draw, `renderer` the GL driver, `notes` as in protocol.Env. Raises what the environment's
    `make` raises, as the same type (UnknownTask, MissingGL, BadOption, ...), and WorkerLost once a worker fails too
    often.
    """

    def __init__(self, options: PoolOptions, *, workers: int, lanes: int = 0) -> None:
        limit = FaultLimit(most=options.max_restarts, window_s=options.restart_window_s)
        config = options.worker_config(lanes=lanes)

        def start(index: int, restarts: int) -> Remote:
            return self._open_worker(config=config, seed=episode_seed(options.seed, SeedRank.START, index, restarts))

        self._envs: list[Supervised] = []
        self._finalizer = weakref.finalize(self, shut_down, self._envs, os.getpid())
        try:
            # all start at once, then each is waited for
            for index in range(workers):
                self._envs.append(Supervised(index, start=partial(start, index), options=options, limit=limit))
            for env in self._envs:
                env.finish_start()
        except BaseException:
            self.close()
            raise
        self.spec: EnvSpec = self._envs[0].spec
        self.renderer: str = self._envs[0].worker.renderer
        self.notes: tuple[str, ...] = self._envs[0].worker.notes

    def _open_worker(self, **facts: Any) -> Remote:
        return Remote(**facts)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers, by index."""
        return tuple(env.worker.pid for env in self._envs)

    def _checked(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, NDArray[np.float32]]:
        return {index: checked_action(action, action_dim=self.spec.action_dim) for index, action in actions.items()}

    def _draw(self, worker: int, size: int, *, lane: int = 0) -> NDArray[np.uint8]:
        if not 1 <= size <= wire.RENDER_LIMIT:
            raise BadOption(f"expected 1..{wire.RENDER_LIMIT}, got {size}", key="size")
        env = self._envs[worker]
        frame = env.render(size, lane=lane)
        if frame is None:
            assert env.fault is not None
            raise WorkerFault(f"worker {worker}: {env.fault.kind}: {env.fault.message}")
        return frame

    def close(self) -> None:
        """End all workers; safe to call twice, and called at interpreter exit."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EnvPool(WorkerPool):
    """A worker for each environment of the options."""

    def __init__(self, **options: Any) -> None:
        self._patience = {"reset": Patience(), "step": Patience()}
        self._poll = select.poll()
        self._watched: dict[int, Supervised] = {}
        checked = PoolOptions(**options)
        super().__init__(checked, workers=checked.count)

    def reset(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        """Open an episode in each worker of {index: seed}, in parallel; what is returned is said at `step`."""
        if not seeds:
            return {}
        for index, seed in seeds.items():
            self._forget(index)
            self._envs[index].ask_reset({0: seed})
        return self._gather(seeds.keys(), self._patience["reset"])

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step | Fault]:
        """Advance each worker of {index: action [A]}, in parallel; raises BadAction, NotReset or WorkerLost.

        Returns the answers that have arrived, at least one where any was asked for, as a rule all. One that is late
        is left out and comes with those of a later call, such as step({}); until then nobody waits for it again.
        A worker that has failed keeps returning its Fault until it is reset.
        """
        ready = self._checked(actions)
        for index, action in ready.items():
            self._forget(index)
            self._envs[index].ask_step({0: action})
        return self._gather(ready.keys(), self._patience["step"])

    def render(self, index: int, size: int) -> NDArray[np.uint8]:
        """Draw worker `index` as uint8 [size, size, 3]; raises BadOption, WorkerFault or WorkerLost."""
        return self._draw(index, size)

    def _gather(self, asked: Collection[int], patience: Patience) -> dict[int, Step | Fault]:
        begin = now = time.monotonic()
        rows = self._failed_at_once(asked)
        waiting = set(asked) - rows.keys()
        until = begin + patience.seconds
        while self._watched and (waiting or not rows):
            enough = bool(rows) or not asked
            if enough and now >= until:
                break
            for env, row in self._arrivals(until if enough else math.inf):
                if env.late and not isinstance(row, Fault):
                    patience.learn(time.monotonic() - env.asked)
                env.late = False
                rows[env.index] = row
                waiting.discard(env.index)
            now = time.monotonic()
        if asked and not waiting and not any(isinstance(row, Fault) for row in rows.values()):
            patience.learn(now - begin)
        for env in self._watched.values():
            env.late = True
        return dict(sorted(rows.items()))

    def _failed_at_once(self, asked: Collection[int]) -> dict[int, Step | Fault]:
        """The faults of workers that could not be asked; the others are watched from now on."""
        rows: dict[int, Step | Fault] = {}
        for index in asked:
            env = self._envs[index]
            if env.fault is not None:
                rows[index] = env.fault
            else:
                self._watched[env.worker.fileno] = env
                self._poll.register(env.worker.fileno, select.POLLIN)
        return rows

    def _arrivals(self, until: float) -> list[tuple[Supervised, Step | Fault]]:
        """What has been answered or has failed, after waiting for it until a time at most."""
        due = min(env.deadline for env in self._watched.values())
        events = self._poll.poll(max(0.0, min(due, until) - time.monotonic()) * 1000 + 1)
        now = time.monotonic()
        found = [fd for fd, _ in events]
        if now > due:
            found += [fd for fd, env in self._watched.items() if now > env.deadline and fd not in found]
        arrived = []
        for fd in found:
            env = self._watched[fd]
            answer = env.answer(now)
            if answer is not None:
                self._unwatch(fd)
                arrived.append((env, answer if isinstance(answer, Fault) else answer[0]))
        return arrived

    def _forget(self, index: int) -> None:
        """Stop waiting for a request that was broken off, by Ctrl-C for example."""
        for fd in [fd for fd, env in self._watched.items() if env.index == index]:
            self._unwatch(fd)

    def _unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._poll.unregister(fd)


def shut_down(envs: Sequence[Supervised], owner: int) -> None:
    """End the workers of a pool that process `owner` has opened."""
    # a forked copy of this process must not end its parent's workers
    if os.getpid() != owner:
        return
    deadline = time.monotonic() + _EXIT_GRACE_S
    for env in envs:
        env.worker.hang_up()
    for env in envs:
        env.worker.kill(grace_s=max(deadline - time.monotonic(), 0.0))


class VectorPool(WorkerPool):
    """`count` lanes of a source with `make_lanes`, in one worker.

    A time-out, a death, an exception or a row that the spec does not allow is a Fault of every lane that was asked or
    had an episode under way, and counts as one restart. A call is answered for all lanes at once, so no lane is late.
    """

    def __init__(self, **options: Any) -> None:
        self._faults: dict[int, Fault] = {}
        self._open: set[int] = set()
        checked = PoolOptions(**options)
        super().__init__(checked, workers=1, lanes=checked.count)
        self._worker = self._envs[0]

    def reset(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        """Open an episode in each lane of {lane: seed}; raises WorkerLost. vector.py says what a seed does."""
        if not seeds:
            return {}
        for lane in seeds:
            self._faults.pop(lane, None)
        self._worker.ask_reset(seeds)
        return self._answer(list(seeds))

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step | Fault]:
        """Advance each lane of {lane: action [A]}; raises BadAction, NotReset or WorkerLost.

        Lanes cannot wait: an episode under way that gets no action is given up, its lane needs a reset. A lane that
        has failed keeps returning its Fault until then.
        """
        ready = self._checked(actions)
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
        return self._draw(0, size, lane=index)

    def _answer(self, asked: list[int]) -> dict[int, Step | Fault]:
        answer = self._worker.answer(time.monotonic())
        while answer is None:
            self._wait()
            answer = self._worker.answer(time.monotonic())
        if isinstance(answer, Fault):
            failed = {lane: replace(answer, index=lane) for lane in {*asked, *self._open}}
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
