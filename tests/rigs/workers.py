"""Failing workers: every kind of fault on purpose, several at once, beside an environment that must not notice."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import counting
from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault, Step
from datamodules.rollout import play

AT_ONCE = 25  # they share their time-outs
FAULT_SEED = 5
ACTION = np.array([0.5, 0.0], np.float32)
STEP_TIMEOUT_S, RESET_TIMEOUT_S = 5.0, 45.0  # that many at once, on few cores
BEYOND_S = 3600.0


@dataclass(frozen=True, slots=True)
class Injection:
    """What the environment does at control step `at` (0: at its reset), and as what it must be recognised."""

    fault: str
    kind: str
    at: int = 3


KINDS = {
    "exception": Injection("raise", "exception"),
    "sigkill": Injection("kill", "death"),
    "exit_0": Injection("leave", "death"),
    "sigstop": Injection("stop", "timeout"),
    "hang": Injection("hang", "timeout"),
    "garbage": Injection("garbage", "garbage"),
    "wrong_shape": Injection("shape", "observation"),
    "nan_pixels": Injection("float", "observation"),
    "nan_reward": Injection("nan", "reward"),
    "huge_reward": Injection("huge", "reward"),
    "wrong_flags": Injection("flags", "observation"),
    "wrong_count": Injection("steps", "observation"),
    "blank": Injection("blank", "blank"),
    "frozen": Injection("frozen", "frozen"),
    "slow_reset": Injection("slow", "timeout", at=0),
}


def run(*, count: int = 50, kinds: tuple[str, ...] = tuple(KINDS), seconds: float = 3.0) -> dict[str, Any]:
    """`count` faults of each kind; how many were recovered from, the longest wait, and the others' rate in a hang.

    Recovered: recognised as its kind, and the next episode begins with the row of its own seed.
    seconds: how long the rate is measured.
    """
    workers = {kind: _inject(KINDS[kind], count) for kind in kinds}
    lost = sum(found["injected"] - found["recovered"] for found in workers.values())
    return {"workers": workers, "workers_unrecovered": lost, **rate_beside_a_hang(seconds=seconds)}


def rate_beside_a_hang(*, seconds: float) -> dict[str, float]:
    """Rows per second of two environments, and while a third one hangs and they play on."""
    with EnvPool(source="counting", kwargs={"episode_steps": 20}, count=3, reset_timeout_s=60) as pool:
        before = _rate(pool, (1, 2), seconds)
        os.kill(pool.pids[0], signal.SIGSTOP)
        during = _rate(pool, (0, 1, 2), seconds)
    return {"others_per_s": before, "others_per_s_in_hang": during, "others_share_in_hang": during / before}


def _inject(injection: Injection, count: int) -> dict[str, Any]:
    options = {"fault": injection.fault, "fault_at": injection.at, "fault_seed": FAULT_SEED, "slow_s": BEYOND_S}
    options["episode_steps"] = 10**6
    limits = {"step_timeout_s": STEP_TIMEOUT_S, "reset_timeout_s": RESET_TIMEOUT_S, "max_restarts": count + 1}
    injected = recovered = 0
    worst = worst_restart = 0.0
    most = min(AT_ONCE, count)
    with EnvPool(source="counting", kwargs=options, count=most + 1, **limits, blank_frames=3, frozen_frames=3) as pool:
        run = _Run(pool, bystander=most)
        while injected < count:
            victims = tuple(range(min(most, count - injected)))
            faults, seconds = run.until_faults(victims)
            good, restart = run.recover(victims, first_seed=1000 + injected)
            injected += len(victims)
            recovered += sum(faults[i].kind == injection.kind and good[i] for i in victims)
            worst, worst_restart = max(worst, seconds), max(worst_restart, restart)
        recovered = recovered if run.bystander_is_whole else 0
    return {
        "injected": injected,
        "recovered": recovered,
        "worst_seconds": round(worst, 3),
        "worst_restart_seconds": round(worst_restart, 3),
    }


class _Run:
    """Steps a pool in which some fail, and watches the one that does not."""

    def __init__(self, pool: EnvPool, *, bystander: int) -> None:
        self._pool, self._bystander, self._time, self.bystander_is_whole = pool, bystander, 0, True
        self._rows: dict[int, Step | Fault] = pool.reset({bystander: 7})

    def until_faults(self, victims: tuple[int, ...]) -> tuple[dict[int, Fault], float]:
        """Episodes that must fail: their faults, and the longest time from a request to its fault."""
        asked = dict.fromkeys(victims, time.monotonic())
        faults: dict[int, Fault] = {}
        longest = 0.0
        self._rows |= self._pool.reset(dict.fromkeys(victims, FAULT_SEED))
        while len(faults) < len(victims):
            now = time.monotonic()
            for index in [i for i, row in self._rows.items() if i in victims and isinstance(row, Fault)]:
                faults[index] = self._rows.pop(index)
                longest = max(longest, now - asked[index])
            asked |= {index: now for index in self._rows if index in victims}
            self._step()
        return faults, longest

    def recover(self, victims: tuple[int, ...], *, first_seed: int) -> tuple[dict[int, bool], float]:
        """Whether the next episode of each begins as its seed says, and how long that took."""
        begin = time.monotonic()
        seeds = {index: first_seed + index for index in victims}
        found = self._pool.reset(seeds)
        while victims and not seeds.keys() <= found.keys():
            self._rows |= {i: row for i, row in found.items() if i == self._bystander}
            found = {i: row for i, row in found.items() if i != self._bystander} | self._step(only=(self._bystander,))
        self._rows |= {i: row for i, row in found.items() if i == self._bystander}
        good = {
            i: not isinstance(found[i], Fault) and counting.decode(found[i].pixels) == (0, seeds[i] % 256)
            for i in victims
        }
        return good, time.monotonic() - begin

    def _step(self, only: tuple[int, ...] | None = None) -> dict[int, Step | Fault]:
        """Act in all that wait for an action, and keep what arrives; with `only`, in these, and return it."""
        acting = [i for i, row in self._rows.items() if not isinstance(row, Fault) and (only is None or i in only)]
        for index in acting:
            del self._rows[index]
        arrived = self._pool.step(dict.fromkeys(acting, ACTION))
        if self._bystander in arrived:
            self._time += 1
            row = arrived[self._bystander]
            whole = not isinstance(row, Fault) and counting.decode(row.pixels) == (self._time % 65536, 7)
            self.bystander_is_whole = self.bystander_is_whole and whole
        if only is None:
            self._rows |= arrived
        return arrived


def _rate(pool: EnvPool, indices: tuple[int, ...], seconds: float) -> float:
    """Rows per second of environments 1 and 2, played as a collector plays them."""
    rows: list[int] = []
    begin = time.monotonic()
    with contextlib.suppress(_TimeIsUp):
        while True:
            play(
                pool,
                partial(_paced, until=begin + seconds),
                dict.fromkeys(indices, 1),
                on_row=lambda index, step, action: rows.append(index),
                spare=lambda index: 1,
                stall_s=0.05,
            )
    return len(rows) / (time.monotonic() - begin)


def _paced(
    pixels: NDArray[np.uint8], is_first: NDArray[np.bool_], ready: NDArray[np.bool_], *, until: float
) -> NDArray[np.float32]:
    if time.monotonic() > until:
        raise _TimeIsUp
    time.sleep(0.004)  # as long as a rendered frame takes
    return np.tile(ACTION, (len(ready), 1))


class _TimeIsUp(Exception):
    """The end of a measurement."""
