"""What a worker answers: requests to its environment, or to several lanes that it steps together."""

import json
import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import check_row
from datamodules.envs.errors import EnvError, to_fields
from datamodules.envs.frame_watch import FrameWatch
from datamodules.envs.protocol import Step


@dataclass(slots=True)
class _Frames:
    pixels: NDArray[np.uint8]  # [lanes, C, h, w]
    render: NDArray[np.uint8]


class Server:
    """Answers requests with one environment; frames go to `memory`, past one watch."""

    def __init__(self, *, env: Any, memory: mmap.mmap, watches: list[FrameWatch]) -> None:
        self._env, self._watches = env, watches
        flat, shape = np.frombuffer(memory, np.uint8), (len(watches), *env.spec.pixels)
        offset = wire.render_offset(env.spec.pixels, len(watches))
        self._frames: _Frames | None = _Frames(flat[: math.prod(shape)].reshape(shape), flat[offset:])
        self.request_size = wire.REQUEST.size + self._body_size()

    def answer(self, request: bytes) -> wire.Reply:
        """Run one request of `request_size` bytes; any failure of the environment becomes a FAILED reply."""
        operation, sequence, argument = wire.REQUEST.unpack_from(request)
        try:
            if operation == wire.OP_RENDER:
                lane, size = wire.unpack_view(argument)
                return self._render(sequence, lane, size)
            return self._advance(sequence, request, seed=argument, opens=operation == wire.OP_RESET)
        except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
            return wire.Reply(sequence, wire.FAILED, text=json.dumps(to_fields(error)))

    def release(self) -> None:
        """Drop the views of the shared memory, which cannot be closed while they live."""
        self._frames = None

    def _body_size(self) -> int:
        return 4 * self._env.spec.action_dim

    def _advance(self, sequence: int, request: bytes, *, seed: int, opens: bool) -> wire.Reply:
        if opens:
            step = self._env.reset(seed)
        else:
            step = self._env.step(np.frombuffer(request, "<f4", offset=wire.REQUEST.size))
        self._store(0, step, opens=opens)
        return wire.Reply(sequence, wire.DONE, *_facts(step))

    def _store(self, lane: int, step: Step, *, opens: bool) -> None:
        check_row(step, self._env.spec, opens=opens)
        self._watches[lane].see(step.pixels, self._frames.pixels[lane], opens=opens)
        self._frames.pixels[lane] = step.pixels

    def _render(self, sequence: int, lane: int, size: int) -> wire.Reply:
        frame = self._draw(lane, size) if hasattr(self._env, "render") else self._enlarged(lane, size)
        if frame.shape != (size, size, 3) or frame.dtype != np.uint8:
            raise EnvError(f"render: expected uint8 {(size, size, 3)}, got {frame.dtype} {frame.shape}")
        self._frames.render[: frame.size] = frame.ravel()
        return wire.Reply(sequence, wire.DONE)

    def _draw(self, lane: int, size: int) -> NDArray[np.uint8]:
        return self._env.render(size)

    def _enlarged(self, lane: int, size: int) -> NDArray[np.uint8]:
        # environments without a camera show their last observation, nearest neighbour
        _, height, width = self._env.spec.pixels
        rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
        colours = self._env.spec.colours
        newest = self._frames.pixels[lane, -colours:].repeat(3 // colours, axis=0)
        return newest[:, rows[:, None], columns].transpose(1, 2, 0)


class LaneServer(Server):
    """The same with lanes, a watch for each: a request has all lanes, and a reply the rows of those it concerns."""

    def _body_size(self) -> int:
        self._body = wire.lane_type(self._env.spec.action_dim)
        return len(self._watches) * self._body.itemsize

    def _advance(self, sequence: int, request: bytes, *, seed: int, opens: bool) -> wire.Reply:
        lanes = np.frombuffer(request, self._body, offset=wire.REQUEST.size)
        asked = lanes["asked"].nonzero()[0].tolist()
        if opens:
            rows = self._env.reset({lane: int(lanes["seed"][lane]) for lane in asked})
        else:
            rows = self._env.step({lane: lanes["action"][lane] for lane in asked})
        for lane in asked:
            self._store(lane, rows[lane], opens=opens)
        return wire.Reply(sequence, wire.DONE, text=json.dumps([_facts(rows[lane]) for lane in asked]))

    def _draw(self, lane: int, size: int) -> NDArray[np.uint8]:
        return self._env.render(lane, size)


def _facts(step: Step) -> tuple[bool, bool, bool, float, int]:
    flags = bool(step.is_first), bool(step.is_last), bool(step.is_terminal)
    return (*flags, float(step.reward), int(step.env_steps))
