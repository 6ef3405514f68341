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

# operation, sequence number, what to draw; for every lane LANE and its action [A] float32 follow, zeros when unused
REQUEST = struct.Struct("<B3xIq")
# whether a lane is asked, and the seed of its episode
LANE = struct.Struct("<?q")
# what comes with a lane's observation, in the order in which a Step has it: reward, is_first, ..., env_steps
ROW = struct.Struct("<d???I")
# magic, sequence number, status, length of the text that follows
_REPLY = struct.Struct("<4sIB3xI")
_MAGIC = b"env1"
_TEXT_LIMIT = 1 << 20
_LENGTH = struct.Struct("<I")
_CACHE_LINE = 64


class Garbage(RuntimeError):
    """Bytes that are no message."""


class Closed(RuntimeError):
    """The other end is gone."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of a worker; `text` is JSON, an error or the first message, and else empty."""

    sequence: int
    status: int
    text: str = ""

    def pack(self) -> bytes:
        """The bytes that an Inbox reads."""
        text = self.text.encode()[:_TEXT_LIMIT]
        return _REPLY.pack(_MAGIC, self.sequence, self.status, len(text)) + text


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
        magic, sequence, status, length = _REPLY.unpack_from(self._data)
        if magic != _MAGIC or status not in (DONE, READY, FAILED) or length > _TEXT_LIMIT:
            raise Garbage(f"reply header {magic!r} status {status} length {length}")
        end = _REPLY.size + length
        if len(self._data) < end:
            return None
        text = self._data[_REPLY.size : end].decode(errors="replace") if length else ""
        self._data = self._data[end:]
        return Reply(sequence, status, text)


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


def request_size(spec: EnvSpec, lanes: int) -> int:
    """Bytes of every request to a worker with so many lanes."""
    return REQUEST.size + lanes * (LANE.size + 4 * spec.action_dim)


def asked_lanes(request: bytes, action_dim: int) -> dict[int, tuple[int, NDArray[np.float32]]]:
    """The seed and the action [A], a copy, of each lane that a request concerns."""
    asked = {}
    for lane, begin in enumerate(range(REQUEST.size, len(request), LANE.size + 4 * action_dim)):
        is_asked, seed = LANE.unpack_from(request, begin)
        if is_asked:
            asked[lane] = seed, np.frombuffer(request, "<f4", action_dim, begin + LANE.size).copy()
    return asked


def memory_size(spec: EnvSpec, lanes: int) -> int:
    """Bytes of shared memory for one worker; pages that no frame touches are never allocated."""
    return sum(_sizes(spec, lanes)) + RENDER_LIMIT * RENDER_LIMIT * 3


@dataclass(frozen=True, slots=True)
class Shared:
    """Views of a worker's shared memory: each lane's images and vectors, the bytes of ROWs and of the render frame."""

    observed: list[Observation]
    rows: memoryview
    frame: NDArray[np.uint8]


def shared_views(spec: EnvSpec, memory: mmap.mmap, lanes: int) -> Shared:
    """The views of a memory of `memory_size` bytes."""
    images, vectors, rows = np.cumsum(_sizes(spec, lanes)).tolist()
    flat = np.frombuffer(memory, np.uint8)
    frames = flat[: lanes * image_bytes(spec)].reshape(lanes, -1)
    numbers = flat[images : images + 4 * lanes * vector_size(spec)].view(np.float32).reshape(lanes, -1)
    observed = [split_images(spec, frames[i]) | split_vectors(spec, numbers[i]) for i in range(lanes)]
    return Shared(observed, flat[vectors:rows].data, flat[rows:])


def written(spec: EnvSpec, lanes: int, request: bytes) -> slice:
    """Which bytes of the shared memory the answer to a request may change."""
    operation, _, argument = REQUEST.unpack_from(request)
    observed = sum(_sizes(spec, lanes))
    return slice(observed, observed + 3 * (argument % VIEW) ** 2) if operation == OP_RENDER else slice(observed)


def _sizes(spec: EnvSpec, lanes: int) -> list[int]:
    """Bytes of the images, of the vectors and of the rows of all lanes, each in cache lines of its own."""
    sizes = image_bytes(spec), 4 * vector_size(spec), ROW.size
    return [-(-lanes * size // _CACHE_LINE) * _CACHE_LINE for size in sizes]
