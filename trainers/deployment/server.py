"""A bundle behind the OpenPI policy WebSocket: metadata first, then for every observation a chunk of actions.

Each client has a controller of its own; all share one planner process. See docs/deployment.md for the messages.
"""

import asyncio
import hmac
import http
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from trainers.bundle.bundle import Bundle, read_bundle
from trainers.bundle.control_spec import ControlSpec
from trainers.deployment.controller import Controller
from trainers.deployment.openpi_codec import LARGEST, BadMessage, pack, unpack

RAW_CAMERA = 8  # a camera's frame may have so many times the bytes of the agent's own frame and a megabyte more
PREFIX = "observation/"
TOLD = (  # of a decision's status; times are in server_timing
    *("source", "observation", "late", "faults", "alarm", "message", "number", "plan_age", "limited"),
    *("predicted_return", "prediction_error", "disagreement"),
)
OWN = ("reset", "release", "prompt", "session_id", "stamp", "sequence")


class PolicyServer:
    """Serves one bundle.

    Args:
        folder: the bundle's.
        hz: decisions per second of every client; the bundle's own by default.
        host, port: to listen at; port 0 takes a free one.
        api_key: that clients must send as `Authorization: Api-Key ...`; None lets everybody in.
        clients: at most, at once.
        max_bytes: of a message; None for what the bundle's observations need at most.
        planner: as a `Controller` has it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hz: float | None = None,
        host: str = "127.0.0.1",
        port: int = 8000,
        api_key: str | None = None,
        clients: int = 8,
        max_bytes: int | None = None,
        planner: str = "process",
    ) -> None:
        self._bundle: Bundle = read_bundle(folder)
        self.hz = hz = hz or self._bundle.control.hz
        self._host, self._port, self._api_key = host, port, api_key
        self._clients, self._connected = clients, 0
        self._max_bytes = max_bytes or _message_bytes(self._bundle.control)
        self._first = Controller(self._bundle, hz=hz, planner=planner)
        # one process serves all; a planner in this one belongs to its client
        self._planner = self._first.planner if planner == "process" and self._first.planner is not None else planner
        self._horizon = self._warm_up()
        self._threads = ThreadPoolExecutor(max_workers=clients, thread_name_prefix="client")

    def metadata(self) -> dict[str, Any]:
        """The first message to every client."""
        control = self._bundle.control
        return {
            **{key: value for key, value in control.to_json().items() if key in ("observation", "action")},
            "hz": self.hz,
            "horizon": self._horizon,
            "task": control.env.task,
            "sha256": self._bundle.sha256,
            "needs_session_id": False,
        }

    async def run(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; `ready` gets the port once clients can connect."""
        async with serve(
            self._client,
            self._host,
            self._port,
            process_request=self._answer_http,
            compression=None,
            max_size=self._max_bytes,
            max_queue=2,
            open_timeout=10,
            ping_interval=20,
            ping_timeout=60,
        ) as server:
            ready(int(next(iter(server.sockets)).getsockname()[1]))
            await stop.wait()

    def close(self) -> None:
        """End the planner's process and the threads."""
        self._first.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._api_key is not None and not _authorized(request.headers, self._api_key):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "expected Authorization: Api-Key ...\n")
        if self._connected >= self._clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._clients} clients are connected\n")
        return None

    async def _client(self, connection: ServerConnection) -> None:
        if self._connected >= self._clients:  # of two handshakes at once both may have seen the last place
            await connection.close(1013, f"{self._clients} clients are connected")
            return
        self._connected += 1
        loop = asyncio.get_running_loop()
        try:
            session = await loop.run_in_executor(self._threads, self._session)
            await connection.send(pack(self.metadata()))
            async for frame in connection:
                try:
                    if not isinstance(frame, bytes):
                        raise BadMessage("message: expected a binary frame")
                    reply = await loop.run_in_executor(self._threads, session.answer, frame)
                except BadMessage as error:
                    # the text frame is the protocol's way to say so; no traceback leaves this machine
                    await connection.send(str(error)[:1000])
                    await connection.close(1011, "bad message")
                    return
                await connection.send(reply)
        except ConnectionClosed:
            pass
        finally:
            self._connected -= 1

    def _session(self) -> "Session":
        return Session(Controller(self._bundle, hz=self.hz, planner=self._planner), max_bytes=self._max_bytes)

    def _warm_up(self) -> int:
        """One whole decision before anybody can connect; returns how many actions it gives."""
        session, env = Session(self._first), self._bundle.control.env
        rng = np.random.default_rng(0)
        seen: dict[str, Any] = {n: rng.integers(0, 256, (h, w, c), np.uint8) for n, (c, h, w) in env.images.items()}
        seen |= {name: np.zeros(size, np.float32) for name, size in env.vectors.items()}
        return len(unpack(session.answer(pack(seen)))["actions"])


class Session:
    """One client: its controller, and the time that the last answer took. `max_bytes` is of a message."""

    def __init__(self, controller: Controller, *, max_bytes: int = LARGEST) -> None:
        self._controller, self._max_bytes, self._previous_ms = controller, max_bytes, 0.0
        self._lock = threading.Lock()
        env = controller.control.env
        self._names = [*env.images, *env.vectors]
        self._only_image = next(iter(env.images)) if len(env.images) == 1 else None

    def answer(self, frame: bytes) -> bytes:
        """The reply to one observation; raises BadMessage."""
        start = time.perf_counter()
        message = unpack(frame, limit=self._max_bytes)
        with self._lock:
            reset, release = (_flag(message, name) for name in ("reset", "release"))
            sequence = _number(message, "sequence")
            if release:
                self._controller.release()
            if reset:
                self._controller.reset()
            observation = self._observation(message)
            # a client's clock is not this machine's: what has arrived counts as new
            _, status = self._controller.step(observation, time.monotonic(), sequence)
            actions = self._controller.chunk()
        infer_ms = 1e3 * (time.perf_counter() - start)
        reply = {
            "actions": actions,
            "status": {key: getattr(status, key) for key in TOLD},
            "server_timing": {"infer_ms": infer_ms, "prev_total_ms": self._previous_ms},
        }
        packed = pack(reply)
        self._previous_ms = 1e3 * (time.perf_counter() - start)
        return packed

    def _observation(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """What of a message is seen, under the agent's names: `observation/NAME`, or NAME; `image` for the only one.

        None of a message without any: a frame that did not come.
        """
        seen = {}
        for key, value in message.items():
            if key in OWN:
                continue
            name = key.removeprefix(PREFIX)
            if name == "image" and name not in self._names and self._only_image is not None:
                name = self._only_image
            seen[name] = value
        return seen or None


def _flag(message: dict[str, Any], name: str) -> bool:
    said = message.pop(name, False)
    if not isinstance(said, bool | np.bool_):
        raise BadMessage(f"{name}: expected true or false, got {type(said).__name__}")
    return bool(said)


def _number(message: dict[str, Any], name: str) -> int | None:
    said = message.get(name)
    if said is not None and (isinstance(said, bool) or not isinstance(said, int | np.integer)):
        raise BadMessage(f"{name}: expected a whole number, got {type(said).__name__}")
    return None if said is None else int(said)


def _authorized(headers: Headers, api_key: str) -> bool:
    said = headers.get_all("Authorization")
    return len(said) == 1 and hmac.compare_digest(said[0].encode(), f"Api-Key {api_key}".encode())


def _message_bytes(control: ControlSpec) -> int:
    images = [c * h * w for c, h, w in control.env.images.values()]
    return 1_000_000 + sum(max(RAW_CAMERA * size, 3 * 1920 * 1080) for size in images)
