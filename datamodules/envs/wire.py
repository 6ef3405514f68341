"""Messages between the learner's process and an environment worker: fixed-size structs over one socket.

Observations never pass here: the worker writes them into shared memory, laid out by `shared_views`.
"""

import json
import mmap
import socket
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.observation import Observation, image_bytes, split_images, split_vectors, vector_size
from worldmodel.spec import EnvSpec

OP_RESET, OP_STEP, OP_RENDER = 1, 2, 3
DONE, READY, FAILED = 0, 1, 2

# the largest side of a `render` frame
RENDER_LIMIT = 512
# what to draw is lane * VIEW + side
VIEW = 1 << 16

# operation, sequence number, argument (seed, or what to draw); the action [A] float32 follows, zeros when unused,
# or for a worker with lanes an array of `lane_type`
REQUEST = struct.Struct("<B3xIq")
# magic, sequence number, status, is_first, is_last, is_terminal, reward, env_steps, length of the text that follows
_REPLY = struct.Struct("<4sIBBBBdII")
_MAGIC = b"env1"
_TEXT_LIMIT = 1 << 20
_LENGTH = struct.Struct("<I")


class Garbage(RuntimeError):
    """Bytes that are no message."""


class Closed(RuntimeError):
    """The other end is gone."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of a worker; `text` is JSON, an error or the first message, and else empty."""

    sequence: int
    status: int
    is_first: bool = False
    is_last: bool = False
    is_terminal: bool = False
    reward: float = 0.0
    env_steps: int = 0
    text: str = ""

    def pack(self) -> bytes:
        """The bytes that an Inbox reads."""
        text = self.text.encode()[:_TEXT_LIMIT]
        flags = (self.is_first, self.is_last, self.is_terminal)
        head = _REPLY.pack(_MAGIC, self.sequence, self.status, *flags, self.reward, self.env_steps, len(text))
        return head + text


class Inbox:
    """Replies as they arrive, in whatever pieces."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        """Take what was read; raises Closed for nothing, which is the end of the stream."""
        if not data:
            raise Closed
        self._data += data

    def next(self) -> Reply | None:
        """The oldest whole reply, None while there is none; raises Garbage."""
        if len(self._data) < _REPLY.size:
            return None
        magic, sequence, status, first, last, terminal, reward, steps, length = _REPLY.unpack_from(self._data)
        if magic != _MAGIC or status not in (DONE, READY, FAILED) or length > _TEXT_LIMIT:
            raise Garbage(f"reply header {magic!r} status {status} length {length}")
        end = _REPLY.size + length
        if len(self._data) < end:
            return None
        text = self._data[_REPLY.size : end].decode(errors="replace") if length else ""
        self._data = self._data[end:]
        return Reply(sequence, status, bool(first), bool(last), bool(terminal), reward, steps, text)


def receive(end: socket.socket, count: int) -> bytes:
    """Read exactly `count` bytes; raises Closed."""
    data = b""
    while len(data) < count:
        chunk = end.recv(count - len(data))
        if not chunk:
            raise Closed
        data += chunk
    return data


def send_json(end: socket.socket, fields: dict[str, Any]) -> None:
    """Send a dict of JSON values with its length; raises TypeError for anything else."""
    data = json.dumps(fields).encode()
    end.sendall(_LENGTH.pack(len(data)) + data)


def receive_json(end: socket.socket) -> dict[str, Any]:
    """Read a dict sent by `send_json`; raises Closed."""
    (length,) = _LENGTH.unpack(receive(end, _LENGTH.size))
    return json.loads(receive(end, length))


def lane_type(action_dim: int) -> np.dtype:
    """What a request says to each lane: whether it is asked, and its seed or its action [A]."""
    return np.dtype([("asked", "?"), ("seed", "<i8"), ("action", "<f4", (action_dim,))])


def body_size(spec: EnvSpec, lanes: int = 0) -> int:
    """Bytes that follow the head of every request; lanes: 0 for a worker with a single environment."""
    return lanes * lane_type(spec.action_dim).itemsize if lanes else 4 * spec.action_dim


def memory_size(spec: EnvSpec, lanes: int = 0) -> int:
    """Bytes of shared memory for one worker (lanes as above); pages that no frame touches are never allocated."""
    return sum(_sizes(spec, lanes)) + RENDER_LIMIT * RENDER_LIMIT * 3


def shared_views(spec: EnvSpec, memory: mmap.mmap, lanes: int = 0) -> tuple[list[Observation], NDArray[np.uint8]]:
    """Each lane's images and vectors, and the bytes of the render frame, as views of a worker's shared memory."""
    flat, (images, vectors) = np.frombuffer(memory, np.uint8), _sizes(spec, lanes)
    lanes = max(1, lanes)
    frames = flat[: lanes * image_bytes(spec)].reshape(lanes, -1)
    numbers = flat[images : images + 4 * lanes * vector_size(spec)].view(np.float32).reshape(lanes, -1)
    observed = [split_images(spec, frames[i]) | split_vectors(spec, numbers[i]) for i in range(lanes)]
    return observed, flat[images + vectors :]


def written(spec: EnvSpec, lanes: int, request: bytes) -> slice:
    """Which bytes of the shared memory the answer to a request may change."""
    operation, _, argument = REQUEST.unpack_from(request)
    observed = sum(_sizes(spec, lanes))
    return slice(observed, observed + 3 * (argument % VIEW) ** 2) if operation == OP_RENDER else slice(observed)


def _sizes(spec: EnvSpec, lanes: int) -> tuple[int, int]:
    """Bytes of the images and of the vectors of all lanes, each in pages of its own."""
    lanes = max(1, lanes)
    images, vectors = lanes * image_bytes(spec), 4 * lanes * vector_size(spec)
    return -(-images // mmap.PAGESIZE) * mmap.PAGESIZE, -(-vectors // mmap.PAGESIZE) * mmap.PAGESIZE
