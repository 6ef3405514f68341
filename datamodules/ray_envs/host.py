"""A worker on the machine that this code runs on, for a learner on another one: bytes in, bytes out."""

import mmap
import os
import time
from collections.abc import Mapping
from typing import Any

from datamodules.envs import wire
from datamodules.envs.remote import Remote, Trouble

# within Ray's own limits it is the learner that decides what takes too long, and ends this process
_FOR_EVER_S = 1e6


class Host:
    """What an actor of Ray is: a worker of this machine, with variables that it inherits beside those found here.

    Args:
        config, seed: see Remote.
        environ: the variables.
    """

    def __init__(self, *, config: dict[str, Any], seed: int, environ: Mapping[str, str]) -> None:
        os.environ.update(environ)
        self._worker = _Worker(config=config, seed=seed)

    def open(self) -> bytes | str:
        """The worker's first message, once it has one, or why there is none.

        Not as an exception: Ray cannot always read it at the other end.
        """
        try:
            return self._worker.open()
        except Trouble as trouble:
            return str(trouble)

    def exchange(self, request: bytes) -> tuple[bytes, bytes] | str:
        """The answer to a request, and what `wire.written` says of the shared memory; or why there is none."""
        try:
            return self._worker.exchange(request)
        except Trouble as trouble:
            return str(trouble)


class _Worker(Remote):
    def open(self) -> bytes:
        reply = self._reply()
        if reply.status == wire.READY:
            self.accept(reply)
            self._memory = mmap.mmap(self._memory_fd, wire.memory_size(self.spec, self._lanes))
        return reply.pack()

    def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        self._sequence = wire.REQUEST.unpack_from(request)[1]
        self._deliver(request, time.monotonic() + _FOR_EVER_S)
        reply = self._reply()
        return reply.pack(), self._memory[wire.written(self.spec, self._lanes, request)]

    def _reply(self) -> wire.Reply:
        return self.receive(time.monotonic() + _FOR_EVER_S)
