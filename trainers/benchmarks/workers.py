"""Eight supervised workers beside one, and beside as many without supervision (action repeat 2, render=fast)."""

import math
import os
import time
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.envs import wire
from datamodules.envs.pool import EnvPool
from datamodules.envs.remote import Remote
from datamodules.envs.seeds import episode_seed
from trainers.benchmarks.shared.timing import playing
from trainers.build.environments import open_pool
from trainers.command.configuration import load_config

WAYS = ("one_worker", "eight_workers", "unsupervised")
DEFAULTS = ("task.env.action_repeat=2", "render=fast")


def measure(overrides: list[str], *, repeats: int = 300, passes: int = 5, envs: int = 8) -> dict[str, Any]:
    """Decisions per second of each, alternating `passes` times; the median, and the spread of the ratios.

    Processor time per decision, of this process and of the workers, says what a busy machine hides.
    """
    given = {text.partition("=")[0] for text in overrides}
    config = load_config([*(text for text in DEFAULTS if text.partition("=")[0] not in given), *overrides])
    with open_pool(config, envs) as pool:
        actions = np.random.default_rng(0).uniform(-1, 1, (repeats, envs, pool.spec.action_dim)).astype(np.float32)
        assert isinstance(pool, EnvPool)
        bare = [env.worker for env in pool._envs]  # the same processes, asked without a supervisor
        ways: list[Callable[[], Figures]] = [
            lambda: _rate(playing(pool, range(1)), actions[:, :1], pool.pids),
            lambda: _rate(playing(pool, range(envs)), actions, pool.pids),
            lambda: _rate(_unsupervised(bare), actions, pool.pids),
        ]
        for way in ways:
            way()
        figures = np.array([[way() for way in ways] for _ in range(passes)])
        rates, processor_us = figures[:, :, 0], np.median(figures[:, :, 1:], 0).round(1)
        one, many, raw = np.median(rates, 0)
        facts = {"task": pool.spec.task, "look": pool.spec.look, "envs": envs}
    speedups, ratios = rates[:, 1] / rates[:, 0], rates[:, 1] / rates[:, 2]
    return {
        **facts,
        "one_worker_per_s": one,
        "eight_workers_per_s": many,
        "unsupervised_per_s": raw,
        "speedup": float(np.median(speedups)),
        "speedup_range": [speedups.min(), speedups.max()],
        "supervision_ratio": float(np.median(ratios)),
        "supervision_ratio_range": [ratios.min(), ratios.max()],
        **{f"{name}_processor_us": us.tolist() for name, us in zip(WAYS, processor_us, strict=True)},
    }


Round = Callable[[np.ndarray], Sized]  # one item for each decision
Figures = tuple[float, float, float]


def _rate(play: Round, actions: np.ndarray, pids: Sequence[int]) -> Figures:
    """Decisions per second, and microseconds of processor time for each, of this process and of the workers."""
    start, mine, theirs = time.perf_counter(), time.process_time(), _processor_s(pids)
    decisions = sum(len(play(row)) for row in actions)
    mine, theirs = time.process_time() - mine, _processor_s(pids) - theirs
    return decisions / (time.perf_counter() - start), 1e6 * mine / decisions, 1e6 * theirs / decisions


def _processor_s(pids: Sequence[int]) -> float:
    """Processor time of processes so far; NaN where no /proc tells it."""
    try:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    except FileNotFoundError:
        return float("nan")
    return sum(int(ticks) for pair in fields for ticks in pair) / os.sysconf("SC_CLK_TCK")


def _unsupervised(workers: Sequence[Remote]) -> Round:
    """The same messages and copies of frames, each answer read in turn with no time-out and no check."""
    size = len(wire.Reply(0, wire.DONE).pack())

    def answer(index: int) -> bool:
        inbox = wire.Inbox()
        inbox.add(wire.receive(workers[index]._end, size))
        reply = inbox.next()
        assert reply is not None
        return workers[index].read_rows(reply)[0].is_last

    def reset(index: int) -> None:
        workers[index].send_reset({0: episode_seed(0, 0, index, 0)}, deadline=math.inf)
        answer(index)

    for index in range(len(workers)):
        reset(index)

    def play(row: np.ndarray) -> Sized:
        for index, worker in enumerate(workers):
            worker.send_step({0: row[index]}, deadline=math.inf)
        for index in [index for index in range(len(workers)) if answer(index)]:
            reset(index)
        return workers  # a decision each

    return play
