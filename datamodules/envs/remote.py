"""One worker process as the learner's process sees it, with an environment or lanes: start, ask, receive, kill."""

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.errors import EnvError, from_fields
from datamodules.envs.processes import END, LEARNERS, MARK, end_marked, spawn
from datamodules.envs.protocol import Step
from worldmodel.spec import EnvSpec

ROOT = Path(__file__).resolve().parents[2]
_CHUNK = 1 << 12


@runtime_checkable
class Process(Protocol):
    """What ends a worker: its process as subprocess has it, or what stands for one on another machine."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs."""

    def wait(self, timeout: float) -> Any:
        """Wait for its end; raises TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal."""

    def kill(self) -> None:
        """End it at once."""


class Trouble(RuntimeError):
    """What went wrong with a worker: `kind` is one of protocol.FAULT_KINDS, `trace` as in an EnvError."""

    def __init__(self, kind: str, message: str, *, trace: str = "") -> None:
        super().__init__(message)
        self.kind, self.trace = kind, trace


class Remote:
    """A worker that starts in the background: its first answer goes to `accept`, those to requests to `read_rows`.

    config: source, kwargs, visuals, blank_frames, frozen_frames and lanes (0: a single environment, which counts as
    lane 0); seed: of the episode that proves that it draws. pid: of the worker once it has answered, before that of
    its guardian.
    """

    spec: EnvSpec
    renderer: str
    notes: tuple[str, ...]

    def __init__(self, *, config: dict[str, Any], seed: int) -> None:
        self._end, far_end = socket.socketpair()
        self._memory_fd = _anonymous_memory()
        self._inbox = wire.Inbox()
        self._shared: wire.Shared | None = None
        self._sequence, self._lanes = 0, max(1, config["lanes"])
        self._asked: list[int] = []
        self._mark = os.urandom(8).hex()
        with far_end:
            self._process = self._launch(far_end)
        self.pid: int = self._process.pid
        try:
            wire.send_json(self._end, {**config, "seed": seed})
        except TypeError:
            self.kill()
            raise

    @property
    def fileno(self) -> int:
        """What becomes readable when an answer arrives, or the worker dies."""
        return self._end.fileno()

    def accept(self, reply: wire.Reply) -> None:
        """Take the worker's first message: `spec` and `renderer`; raises its own EnvError, or Trouble."""
        if reply.status == wire.FAILED:
            raise _error(reply)
        if reply.status != wire.READY:
            raise Trouble("garbage", f"expected the ready message, got status {reply.status}")
        try:
            fields = json.loads(reply.text)
            self.spec, self.renderer = EnvSpec.from_json(fields["spec"]), str(fields["renderer"])
            self.pid, self.notes = int(fields["pid"]), tuple(map(str, fields["notes"]))
            memory = mmap.mmap(self._memory_fd, wire.memory_size(self.spec, self._lanes))
        except (ValueError, TypeError, KeyError, AttributeError, OSError, OverflowError) as error:
            raise Trouble("garbage", f"expected the ready message, got {type(error).__name__}: {error}") from error
        self._shared = wire.shared_views(self.spec, memory, self._lanes)
        self._no_action = bytes(4 * self.spec.action_dim)
        self._not_asked = wire.LANE.pack(False, 0) + self._no_action

    def send_reset(self, seeds: Mapping[int, int], *, deadline: float) -> None:
        """Ask for a reset of {lane: seed}; raises Trouble, of kind timeout where it is not taken until `deadline`."""
        self._ask(
            wire.OP_RESET,
            {lane: wire.LANE.pack(True, seed) + self._no_action for lane, seed in seeds.items()},
            deadline,
        )

    def send_step(self, actions: Mapping[int, NDArray[np.float32]], *, deadline: float) -> None:
        """Ask for a step with checked actions {lane: [A]}; raises Trouble as `send_reset`."""
        self._ask(wire.OP_STEP, {lane: wire.LANE.pack(True, 0) + a.tobytes() for lane, a in actions.items()}, deadline)

    def read_rows(self, reply: wire.Reply) -> dict[int, Step]:
        """The rows of an answer by lane, copies; raises Trouble."""
        refuse_failure(reply)
        assert self._shared is not None
        rows = {}
        for lane in self._asked:
            observation = {name: values.copy() for name, values in self._shared.observed[lane].items()}
            rows[lane] = Step(observation, *wire.ROW.unpack_from(self._shared.rows, lane * wire.ROW.size))
        return rows

    def take(self) -> wire.Reply | None:
        """The answer to the last request if it has arrived; raises Trouble."""
        try:
            while True:
                reply = self._inbox.next()
                # an older number answers a call that was broken off, by Ctrl-C for example
                if reply is not None and reply.sequence == self._sequence:
                    return reply
                if reply is None:
                    self._inbox.add(self._end.recv(_CHUNK, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None
        except (wire.Closed, ConnectionResetError) as error:
            raise self._death() from error
        except wire.Garbage as error:
            raise Trouble("garbage", str(error)) from error

    def receive(self, deadline: float) -> wire.Reply:
        """Wait until monotonic time `deadline` for the answer to the last request; raises Trouble."""
        while True:
            ready = self._await(select.POLLIN, deadline)
            reply = self.take()
            if reply is not None:
                return reply
            if not ready:
                raise Trouble("timeout", "no answer in time")

    def render(self, size: int, *, deadline: float, lane: int = 0) -> NDArray[np.uint8]:
        """A frame [size, size, 3] of the present state; raises Trouble."""
        self._ask(wire.OP_RENDER, {}, deadline, view=lane * wire.VIEW + size)
        refuse_failure(self.receive(deadline))
        assert self._shared is not None
        return self._shared.frame[: size * size * 3].reshape(size, size, 3).copy()

    def hang_up(self) -> None:
        """Close the socket, which ends a healthy worker; follow with `kill`."""
        self._end.close()

    def kill(self, *, grace_s: float = 0.0) -> None:
        """Make sure the process is gone, after at most `grace_s` for its own clean exit, and free its memory."""
        self._end.close()
        if not self._ended(grace_s):
            self._process.send_signal(END)
            if not self._ended(1.0):
                # within a driver's call even SIGKILL can take for ever: subprocess collects such a process later
                self._process.kill()
                self._ended(1.0)
        if self._process.returncode is None or self._process.returncode < 0:
            end_marked(self._mark)
        self._shared = None
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    def _launch(self, far_end: socket.socket) -> Process:
        # the worker's guardian, a process that ends in the same way
        return spawn(partial(_spawn, far_end.fileno(), self._memory_fd, self._mark))

    def _ask(self, operation: int, asked: Mapping[int, bytes], deadline: float, *, view: int = 0) -> None:
        # wraps like the unsigned field that carries it
        self._sequence = (self._sequence + 1) % 2**32
        self._asked, request = list(asked), wire.REQUEST.pack(operation, self._sequence, view)
        self._deliver(request + b"".join(asked.get(lane, self._not_asked) for lane in range(self._lanes)), deadline)

    def _deliver(self, data: bytes, deadline: float) -> None:
        try:
            sent = self._send_some(data)
            # more than the socket holds, to a worker that does not read
            while sent < len(data):
                if not self._await(select.POLLOUT, deadline):
                    raise Trouble("timeout", "no request taken in time")
                sent += self._send_some(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error

    def _send_some(self, data: bytes) -> int:
        try:
            return self._end.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _await(self, event: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._end, event)
        return bool(poll.poll(max(deadline - time.monotonic(), 0.0) * 1000))

    def _ended(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def _death(self) -> Trouble:
        # what the worker started ends before its guardian does
        if not self._ended(0.5):
            return Trouble("death", "closed its socket")
        code = self._process.returncode or 0
        return Trouble("death", f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}")


def refuse_failure(reply: wire.Reply) -> None:
    """Raise Trouble for the answer of an environment that raised."""
    if reply.status == wire.FAILED:
        error = _error(reply)
        raise Trouble(error.kind, str(error), trace=error.trace)


def _error(reply: wire.Reply) -> EnvError:
    """What an environment raised; raises Trouble where the text does not say it."""
    try:
        return from_fields(json.loads(reply.text))
    except (ValueError, TypeError, KeyError) as error:
        raise Trouble("garbage", f"expected an error as JSON, got {reply.text[:80]!r}") from error


def _anonymous_memory() -> int:
    # no name in any file system, so nothing is left behind however the processes end
    if hasattr(os, "memfd_create"):
        return os.memfd_create("env-frames", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _spawn(socket_fd: int, memory_fd: int, mark: str) -> subprocess.Popen[bytes]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    settings |= {MARK: mark, "PYTHONPATH": os.pathsep.join(paths)}
    # -P keeps the working directory off the import path: a run folder may hold any file name
    command = [sys.executable, "-P", "-m", "datamodules.envs.worker", str(socket_fd), str(memory_fd), str(os.getpid())]
    # a signal to the whole group waits until the worker ignores it: the parent decides what it means
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEARNERS)
    try:
        return subprocess.Popen(
            command,
            pass_fds=(socket_fd, memory_fd),
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            # signals to the learner's process group reach neither the worker nor what it starts
            start_new_session=True,
            # the learner's stdout carries its result line: what an environment prints goes to stderr
            stdout=2,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
