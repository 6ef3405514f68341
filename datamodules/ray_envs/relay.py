"""The learner's side of a worker on another machine: a thread that carries its requests there and the answers back."""

import json
import mmap
import os
import socket
import subprocess
import threading
import time
from types import ModuleType
from typing import Any

from datamodules.envs import wire
from datamodules.parts import VARIABLE
from datamodules.ray_envs.host import Host
from worldmodel.spec import EnvSpec

_RETRY_S = 0.5


class Traffic:
    """Bytes that went over the network, counted by any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes, self._told, self._since = 0, 0, time.monotonic()

    def add(self, count: int) -> None:
        """Count what went there or back."""
        with self._lock:
            self._bytes += count

    def metrics(self) -> dict[str, float]:
        """`network/mb` of all and `network/mb_per_s` since the last call."""
        with self._lock:
            now, total = time.monotonic(), self._bytes
            rate = (total - self._told) / max(now - self._since, 1e-9)
            self._told, self._since = total, now
        return {"network/mb": total / 1e6, "network/mb_per_s": rate / 1e6}


class Relay:
    """Stands for the worker's process: it has the far end of the socket, and the memory that answers are put into.

    A worker that was handed to a machine which turns out to be gone is handed to another one, until it has started.

    Args:
        ray: the module, connected.
        far_end: of the learner's socket, copied; closed when the worker is gone.
        memory_fd: of the learner's memory, copied.
        traffic: counts what is carried.

    `opened` says whether the worker has started, `why` how it ended.
    """

    def __init__(self, ray: ModuleType, far_end: socket.socket, memory_fd: int, traffic: Traffic) -> None:
        self._ray, self._end, self._memory_fd, self._traffic = ray, far_end.dup(), os.dup(memory_fd), traffic
        self.pid = os.getpid()
        self.returncode: int | None = None
        self.why = "its relay ended"
        self.opened = False
        self._lock, self._told = threading.Lock(), False
        self._actor: Any = None
        self._hosts = ray.remote(Host).options(num_cpus=1, scheduling_strategy="SPREAD")
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("relay", timeout)

    def send_signal(self, sig: int) -> None:
        """End the worker, whatever the signal."""
        self.kill()

    def kill(self) -> None:
        """End the worker with its actor."""
        with self._lock:
            self._told = True
            self._end_actor()

    def _run(self) -> None:
        try:
            self._carry(wire.receive_json(self._end))
        except (wire.Closed, OSError):
            self.why = "its learner hung up"
        except self._ray.exceptions.RayError as error:
            self.why = _reason(error)
        finally:
            self.kill()
            self.returncode = 0
            os.close(self._memory_fd)
            self._end.close()

    def _carry(self, config: dict[str, Any]) -> None:
        opening, inbox = self._opened(config), wire.Inbox()
        if isinstance(opening, str):
            self.why = opening
            return
        inbox.add(opening)
        reply = inbox.next()
        assert reply is not None
        if reply.status == wire.READY:
            spec = EnvSpec.from_json(json.loads(reply.text)["spec"])
            lanes = max(1, config["lanes"])
            size = wire.memory_size(spec, lanes)
            os.ftruncate(self._memory_fd, size)
            memory = mmap.mmap(self._memory_fd, size)
        self.opened = True
        self._end.sendall(opening)
        while reply.status == wire.READY:
            request = wire.receive(self._end, wire.request_size(spec, lanes))
            exchanged = self._ray.get(self._actor.exchange.remote(request))
            if isinstance(exchanged, str):
                self.why = exchanged
                return
            answer, changed = exchanged
            memory[wire.written(spec, lanes, request)] = changed
            self._traffic.add(len(request) + len(answer) + len(changed))
            self._end.sendall(answer)

    def _opened(self, config: dict[str, Any]) -> bytes | str:
        """The worker's first message or why there is none, from the first machine that lives to send it."""
        seed = config.pop("seed")
        environ = {VARIABLE: os.environ.get(VARIABLE, "")}
        while True:
            with self._lock:
                if self._told:
                    raise wire.Closed
                self._actor = self._hosts.remote(config=config, seed=seed, environ=environ)
            try:
                opening: bytes | str = self._ray.get(self._actor.open.remote())
                return opening
            except self._ray.exceptions.RayActorError as error:
                if error.actor_init_failed:
                    raise
                time.sleep(_RETRY_S)

    def _end_actor(self) -> None:
        if self._actor is not None and self._ray.is_initialized():
            self._ray.kill(self._actor)


def _reason(error: Exception) -> str:
    """What an actor raised, or how it was lost, in a line."""
    return str(getattr(error, "cause", None) or error).strip().splitlines()[0]
