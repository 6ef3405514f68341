"""One worker process as the learner's process sees it: start, ask, receive, kill."""

import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import REWARD_LIMIT
from datamodules.envs.errors import from_fields
from datamodules.envs.protocol import Step
from worldmodel.spec import EnvSpec

ROOT = Path(__file__).resolve().parents[2]


class Trouble(RuntimeError):
    """What went wrong with a worker: `kind` is timeout, death, exception, garbage, reward or spec."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class RemoteEnv:
    """A worker that starts in the background; `finish_start` waits for it and sets `spec` and `renderer`."""

    spec: EnvSpec
    renderer: str

    def __init__(self, *, source: str, kwargs: dict[str, Any], visuals: dict[str, Any], seed: int) -> None:
        self._end, far_end = socket.socketpair()
        self._memory_fd = _anonymous_memory()
        # a poll object, not a socket time-out: that costs two more system calls in every step
        self._poll = select.poll()
        self._poll.register(self._end, select.POLLIN)
        self._frames: NDArray[np.uint8] | None = None
        self._sequence = 0
        with far_end:
            self._process = _spawn(far_end.fileno(), self._memory_fd)
        # the kernel ties its parent-death signal to the thread that starts a child, not to the process
        main_thread = threading.current_thread() is threading.main_thread()
        try:
            config = {"source": source, "kwargs": kwargs, "visuals": visuals}
            wire.send_json(self._end, {**config, "seed": seed, "kill_with_parent": main_thread})
        except TypeError:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def finish_start(self, *, timeout_s: float) -> None:
        """Wait for the environment; raises the worker's own typed EnvError, or Trouble."""
        reply = self._receive(0, time.monotonic() + timeout_s)
        if reply.status == wire.FAILED:
            raise from_fields(json.loads(reply.text))
        if reply.status != wire.READY:
            raise Trouble("garbage", f"expected the ready message, got status {reply.status}")
        fields = json.loads(reply.text)
        self.spec, self.renderer = EnvSpec.from_json(fields["spec"]), str(fields["renderer"])
        memory = mmap.mmap(self._memory_fd, wire.memory_size(self.spec.pixels))
        self._frames = np.frombuffer(memory, np.uint8)
        self._action = struct.Struct(f"<{self.spec.action_dim}f")
        self._no_action = bytes(self._action.size)

    def send_reset(self, seed: int) -> None:
        """Ask for a reset; raises Trouble."""
        self._send(wire.OP_RESET, seed, self._no_action)

    def send_step(self, action: NDArray[np.float32]) -> None:
        """Ask for a step with a checked action [A]; raises Trouble."""
        self._send(wire.OP_STEP, 0, action.tobytes())

    def receive_step(self, *, deadline: float) -> Step:
        """Wait until monotonic time `deadline` for the row that was asked for, with its own pixels; raises Trouble."""
        reply = self._answer(deadline)
        if not abs(reply.reward) <= REWARD_LIMIT:
            raise Trouble("reward", f"expected a finite reward within {REWARD_LIMIT:g}, got {reply.reward}")
        channels, height, width = self.spec.pixels
        pixels = self._frames[: channels * height * width].reshape(self.spec.pixels).copy()
        return Step(pixels, reply.reward, reply.is_first, reply.is_last, reply.is_terminal, reply.env_steps)

    def render(self, size: int, *, deadline: float) -> NDArray[np.uint8]:
        """A frame [size, size, 3] of the present state; raises Trouble."""
        self._send(wire.OP_RENDER, size, self._no_action)
        self._answer(deadline)
        offset = wire.render_offset(self.spec.pixels)
        return self._frames[offset : offset + size * size * 3].reshape(size, size, 3).copy()

    def hang_up(self) -> None:
        """Close the socket, which ends a healthy worker; follow with `kill`."""
        self._end.close()

    def kill(self, *, grace_s: float = 0.0) -> None:
        """Make sure the process is gone, after at most `grace_s` for its own clean exit, and free its memory."""
        self._end.close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._frames = None
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    def _send(self, operation: int, argument: int, action: bytes) -> None:
        # wraps like the unsigned field that carries it
        self._sequence = (self._sequence + 1) % 2**32
        try:
            self._end.sendall(wire.REQUEST.pack(operation, self._sequence, argument) + action)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error

    def _answer(self, deadline: float) -> wire.Reply:
        reply = self._receive(self._sequence, deadline)
        if reply.status == wire.FAILED:
            raise Trouble("exception", str(from_fields(json.loads(reply.text))))
        return reply

    def _receive(self, sequence: int, deadline: float) -> wire.Reply:
        while True:
            try:
                reply = wire.receive_reply(
                    lambda count: wire.receive(self._end, count, wait=lambda: self._wait(deadline))
                )
            except (wire.Closed, ConnectionResetError) as error:
                raise self._death() from error
            except wire.Garbage as error:
                raise Trouble("garbage", str(error)) from error
            # an older number answers a call that was interrupted, by Ctrl-C for example
            if reply.sequence == sequence:
                return reply

    def _wait(self, deadline: float) -> None:
        # an answer that is already there is taken even when an earlier worker used up the time
        if not self._poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise Trouble("timeout", "no answer in time")

    def _death(self) -> Trouble:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Trouble("death", "closed its socket")
        return Trouble("death", f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}")


def _anonymous_memory() -> int:
    # no name in any file system, so nothing is left behind however the processes end
    if hasattr(os, "memfd_create"):
        return os.memfd_create("env-frames", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _spawn(socket_fd: int, memory_fd: int) -> subprocess.Popen[bytes]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    single = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    # -P keeps the working directory off the import path: a run folder may hold any file name
    command = [sys.executable, "-P", "-m", "datamodules.envs.worker", str(socket_fd), str(memory_fd), str(os.getpid())]
    # a signal to the whole group waits until the worker ignores it: the parent decides what it means
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return _popen(command, socket_fd, memory_fd, {**single, "PYTHONPATH": os.pathsep.join(paths)})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _popen(command: list[str], socket_fd: int, memory_fd: int, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=(socket_fd, memory_fd),
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        # the learner's stdout carries its result line: what an environment prints goes to stderr
        stdout=2,
    )
