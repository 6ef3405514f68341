"""Counting environment for alignment and fault tests: what is seen encodes time, rewards encode time and action."""

import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import checked_action, require_open
from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Step
from datamodules.observation import Observation
from worldmodel.spec import EnvSpec

TASK = "counting"
_Early = Literal["none", "raise", "exit", "leave", "kill", "stop", "hang", "slow", "nan", "huge", "shape", "float"]
FaultKind = Literal[_Early, "flags", "steps", "print", "garbage", "blank", "frozen", "vector", "names"]
# from the moment on, not at that moment only
LASTING = ("blank", "frozen")


def make(
    *,
    task: str = TASK,
    size: int = 16,
    action_dim: int = 2,
    action_repeat: int = 1,
    episode_steps: int = 10,
    terminal: bool = False,
    fault: FaultKind = "none",
    fault_at: int = 3,
    fault_seed: int | None = None,
    slow_s: float = 1.0,
    blank: bool = False,
    cameras: Mapping[str, int] | None = None,
    vectors: Mapping[str, int] | None = None,
) -> "CountingEnv":
    """Open a counter with [3, size, size] frames; raises BadOption for another task.

    cameras: instead, images by name with their sides; none where it is empty. vectors: their sizes by name.

    terminal: episodes end by termination instead of truncation. fault: what goes wrong when control step `fault_at`
    is reached (0: at the reset), in every episode or only in those of `fault_seed`; "slow" takes `slow_s` seconds.
    blank: all frames are one constant colour.
    """
    if task != TASK:
        raise BadOption(f"expected {TASK!r}, got {task!r}", key="task")
    spec = EnvSpec(
        task=TASK,
        images={name: (3, side, side) for name, side in ({"pixels": size} if cameras is None else cameras).items()},
        vectors=dict(vectors or {}),
        action_dim=action_dim,
        action_repeat=action_repeat,
        episode_steps=episode_steps,
    )
    plan = FaultPlan(kind=fault, at=fault_at, seed=fault_seed, slow_s=slow_s)
    return CountingEnv(spec=spec, terminal=terminal, plan=plan, blank=blank)


def encode(time_step: int, seed: int, size: int) -> NDArray[np.uint8]:
    """A frame [3, size, size] that shows control step `time_step` modulo 65536 and the seed's last byte."""
    frame = np.empty((3, size, size), np.uint8)
    frame[0], frame[1], frame[2] = time_step % 256, time_step // 256 % 256, seed % 256
    # a constant image would count as a blank one
    frame[:, 0, 0] = 255 - frame[:, 0, 0]
    return frame


def encode_vector(time_step: int, seed: int, size: int) -> NDArray[np.float32]:
    """A vector [size] whose entry i is 1000 i + time_step % 65536 + (the seed's last byte) / 256."""
    return np.float32(1000) * np.arange(size, dtype=np.float32) + np.float32(time_step % 65536 + seed % 256 / 256)


def decode(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """(control step % 65536, seed % 256) from the last frame of pixels [..., 3, h, w] of one row."""
    low, high, seed = (int(channel[-1, -1]) for channel in pixels[-3:])
    return low + 256 * high, seed


def reward_of(time_step: int, action: NDArray[np.float32]) -> float:
    """Reward of the one control step that arrives at `time_step` under `action` [A]."""
    # an endless episode must not leave the range of rewards that are believed
    return 100.0 * (time_step % 5000) + abs(float(action[0]))


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What goes wrong, and when; see `make`."""

    kind: FaultKind
    at: int
    seed: int | None
    slow_s: float

    def strikes(self, seed: int, *, before: int, now: int) -> bool:
        """Whether it goes wrong on the way from control step `before` to `now` of the episode of `seed`."""
        reached = self.at <= now and (before < self.at or self.kind in LASTING)
        return self.kind != "none" and reached and self.seed in (None, seed)


class CountingEnv:
    """Counts control steps; optionally fails on purpose."""

    def __init__(self, *, spec: EnvSpec, terminal: bool, plan: FaultPlan, blank: bool) -> None:
        self.spec = spec
        self._terminal, self._blank, self._plan = terminal, blank, plan
        self._seed, self._time, self._open = 0, 0, False

    def reset(self, seed: int) -> Step:
        """Open an episode at time 0."""
        self._seed, self._time, self._open = seed, 0, True
        row = Step(self._observation(), 0.0, is_first=True, is_last=False, is_terminal=False, env_steps=0)
        return self._spoil(row) if self._plan.strikes(seed, before=-1, now=0) else row

    def step(self, action: NDArray[np.floating]) -> Step:
        """Count action_repeat control steps and sum their `reward_of`; raises BadAction or NotReset."""
        require_open(self._open)
        action = checked_action(action, action_dim=self.spec.action_dim)
        repeat = min(self.spec.action_repeat, self.spec.episode_steps - self._time)
        reward = 0.0
        for _ in range(repeat):
            self._time += 1
            reward += reward_of(self._time, action)
        last = self._time >= self.spec.episode_steps
        self._open = not last
        row = Step(self._observation(), reward, False, last, last and self._terminal, env_steps=repeat)
        before = self._time - repeat
        return self._spoil(row) if self._plan.strikes(self._seed, before=before, now=self._time) else row

    def state_fingerprint(self) -> bytes:
        """The seed and the time."""
        return f"{self._seed} {self._time}".encode()

    def close(self) -> None:
        """Nothing is held open."""

    def _observation(self) -> Observation:
        vectors = {name: encode_vector(self._time, self._seed, size) for name, size in self.spec.vectors.items()}
        return self._images(self._time) | vectors

    def _images(self, time_step: int) -> Observation:
        images = {name: encode(time_step, self._seed, side) for name, (_, side, _) in self.spec.images.items()}
        return {name: np.zeros_like(image) if self._blank else image for name, image in images.items()}

    def _spoil(self, row: Step) -> Step:
        kind = self._plan.kind
        if kind == "raise":
            raise ArithmeticError(f"on purpose at {self._time}")
        if kind in _ENDS:
            _ENDS[kind]()
        if kind in ("hang", "slow"):
            time.sleep(3600 if kind == "hang" else self._plan.slow_s)
        if kind == "garbage":
            _write_to_sockets(b"not a message" * 10)
        if kind == "print":
            os.write(1, b"noise from the environment\n" * 100)
        return replace(row, **self._wrong(kind, row))

    def _wrong(self, kind: FaultKind, row: Step) -> dict[str, Any]:
        """The fields that a spoilt row has wrong."""
        seen, images = row.observation, self._images(self._plan.at)
        values: dict[str, dict[str, Any]] = {
            "frozen": {"observation": seen | images},
            "vector": {"observation": seen | {n: np.full(d, np.nan, np.float32) for n, d in self.spec.vectors.items()}},
            "names": {"observation": dict(list(seen.items())[1:])},
            "nan": {"reward": float("nan")},
            "huge": {"reward": 1e30},
            "shape": {"observation": seen | {name: seen[name][:, :-1] for name in images}},
            "float": {"observation": seen | {name: np.full(seen[name].shape, np.nan) for name in images}},
            "flags": {"is_first": not row.is_first},
            "steps": {"env_steps": -1},
            "blank": {"observation": seen | {name: np.full_like(seen[name], 7) for name in images}},
        }
        return values.get(kind, {})


_ENDS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "leave": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def _write_to_sockets(data: bytes) -> None:
    # a library that writes to a descriptor it does not own
    for descriptor in range(3, 1024):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, data)
        except OSError:
            continue
