"""Environments in a process of their own: `python -m datamodules.envs.worker SOCKET_FD MEMORY_FD PARENT_PID`.

The parent (remote.py) sends a JSON config, then reset, step and render requests. This process never imports
torch: Mesa's and Triton's LLVM crash when they share a process.
"""

import faulthandler
import json
import math
import mmap
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import check_row
from datamodules.envs.errors import BlankFrame, EnvError, FrozenFrame, to_fields
from datamodules.envs.processes import guard, leave_signals
from datamodules.envs.protocol import Env, Lanes, Step
from datamodules.envs.sources import open_env, open_lanes


class FrameWatch:
    """Counts frames of one constant colour in a row, and the states that went by while the frame stayed the same.

    blank_frames, frozen_frames: how many are too many, 0 for never. Frozen frames need the environment's
    `state_fingerprint()`; without it they are not looked for, since a world may stand still.
    """

    def __init__(self, env: Any, *, blank_frames: int, frozen_frames: int) -> None:
        self._fingerprint = getattr(env, "state_fingerprint", None) if frozen_frames else None
        self._blank_frames, self._frozen_frames = blank_frames, frozen_frames
        self._blank = 0
        self._states: set[bytes] = set()

    def first(self, pixels: NDArray[np.uint8]) -> None:
        """Look at the first frame [C, h, w] of a worker's life; raises BlankFrame unless blank frames are allowed."""
        if self._blank_frames and is_blank(pixels):
            raise BlankFrame("the first frame is one constant colour: the renderer draws nothing, check MUJOCO_GL")

    def see(self, pixels: NDArray[np.uint8], last: NDArray[np.uint8], *, opens: bool) -> None:
        """Look at a frame [C, h, w] and at the one before it; raises BlankFrame or FrozenFrame."""
        # counted across episodes: those of some tasks are shorter than `blank_frames`
        self._blank = self._blank + 1 if is_blank(pixels) else 0
        if 0 < self._blank_frames <= self._blank:
            raise BlankFrame(f"{self._blank} frames in a row are one constant colour")
        if self._fingerprint is None:
            return
        if opens or not np.array_equal(pixels, last):
            self._states = set()
        self._states.add(self._fingerprint())
        if len(self._states) > self._frozen_frames:
            raise FrozenFrame(f"the frame stayed the same in {len(self._states)} different states")


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether every channel of a frame [C, h, w] is constant."""
    # a few pixels first: nearly every frame is settled by them
    if (pixels[:, ::13, ::13] != pixels[:, :1, :1]).any():
        return False
    return bool((pixels == pixels[:, :1, :1]).all())


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
            _show(error)
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
            step = self._env.step(np.frombuffer(request, "<f4", offset=wire.REQUEST.size).copy())
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
        lanes = np.frombuffer(request, self._body, offset=wire.REQUEST.size).copy()
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


def main(argv: list[str]) -> None:
    """Serve until the parent closes the socket or dies."""
    socket_fd, memory_fd, parent = (int(value) for value in argv)
    guard(parent, private=(socket_fd, memory_fd))
    faulthandler.enable()
    # Ctrl-C and a preemption notice can reach every process of a job: the parent decides what they mean
    leave_signals((signal.SIGINT, signal.SIGTERM))
    # what holds the socket open after the worker's end would hide that end
    os.set_inheritable(socket_fd, False)
    os.set_inheritable(memory_fd, False)
    with socket.socket(fileno=socket_fd) as end:
        try:
            _serve(end, memory_fd, wire.receive_json(end))
        except (wire.Closed, BrokenPipeError, ConnectionResetError):
            return


def _serve(end: socket.socket, memory_fd: int, config: dict) -> None:
    try:
        env, watches = _open(config)
    except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
        _show(error)
        end.sendall(wire.Reply(0, wire.FAILED, text=json.dumps(to_fields(error))).pack())
        return
    ready = {"spec": env.spec.to_json(), "renderer": getattr(env, "renderer", "none"), "pid": os.getpid()}
    ready["notes"] = list(getattr(env, "notes", ()))
    size = wire.memory_size(env.spec.pixels, len(watches))
    os.ftruncate(memory_fd, size)
    with mmap.mmap(memory_fd, size) as memory:
        server = (LaneServer if config["lanes"] else Server)(env=env, memory=memory, watches=watches)
        try:
            end.sendall(wire.Reply(0, wire.READY, text=json.dumps(ready)).pack())
            while True:
                end.sendall(server.answer(wire.receive(end, server.request_size)).pack())
        finally:
            env.close()
            server.release()


def _show(error: Exception) -> None:
    # our own errors say in one sentence what to do
    if not isinstance(error, EnvError):
        traceback.print_exception(error)
        sys.stderr.flush()


def _open(config: dict) -> tuple[Env | Lanes, list[FrameWatch]]:
    """The environment, or the lanes, with a watch for each; their first frames have been looked at."""
    which = {name: config[name] for name in ("source", "kwargs", "visuals")}
    numbers = {name: config[name] for name in ("blank_frames", "frozen_frames")}
    if not config["lanes"]:
        env = open_env(**which)
        watches = [FrameWatch(env, **numbers)]
        watches[0].first(env.reset(config["seed"]).pixels)
        return env, watches
    lanes = open_lanes(**which, lanes=config["lanes"])
    # a vector environment has no state that could be told by lane
    watches = [FrameWatch(None, **numbers) for _ in range(config["lanes"])]
    for lane, row in lanes.reset({lane: config["seed"] + lane for lane in range(config["lanes"])}).items():
        watches[lane].first(row.pixels)
    return lanes, watches


if __name__ == "__main__":
    main(sys.argv[1:])
