"""One environment in its own process: `python -m datamodules.envs.worker SOCKET_FD MEMORY_FD PARENT_PID`.

The parent (remote.py) sends a JSON config, then reset, step and render requests. This process never imports
torch: Mesa's and Triton's LLVM crash when they share a process.
"""

import ctypes
import faulthandler
import json
import mmap
import os
import signal
import socket
import struct
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import check_row
from datamodules.envs.errors import EnvError, to_fields
from datamodules.envs.frame_watch import FrameWatch
from datamodules.envs.protocol import Env, Step
from datamodules.envs.sources import open_env

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Serve until the parent closes the socket or dies."""
    socket_fd, memory_fd, parent = (int(value) for value in argv)
    faulthandler.enable()
    # Ctrl-C and a preemption notice reach the whole process group: the parent decides what they mean
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=socket_fd) as end:
        try:
            config = wire.receive_json(end)
            _follow(parent)
            _serve(end, memory_fd, config)
        except (wire.Closed, BrokenPipeError, ConnectionResetError):
            return


def _follow(parent: int) -> None:
    # end of file does not reach an environment that hangs in C code; the kernel's signal does
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise wire.Closed


def _serve(end: socket.socket, memory_fd: int, config: dict) -> None:
    try:
        env = open_env(source=config["source"], kwargs=config["kwargs"], visuals=config["visuals"])
        watch = FrameWatch(env, blank_frames=config["blank_frames"], frozen_frames=config["frozen_frames"])
        watch.first(env.reset(config["seed"]).pixels)
    except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
        end.sendall(wire.Reply(0, wire.FAILED, text=json.dumps(to_fields(error))).pack())
        return
    ready = {"spec": env.spec.to_json(), "renderer": getattr(env, "renderer", "none")}
    os.ftruncate(memory_fd, wire.memory_size(env.spec.pixels))
    with mmap.mmap(memory_fd, wire.memory_size(env.spec.pixels)) as memory:
        server = Server(env=env, memory=memory, watch=watch)
        try:
            end.sendall(wire.Reply(0, wire.READY, text=json.dumps(ready)).pack())
            while True:
                end.sendall(server.answer(wire.receive(end, server.request_size)).pack())
        finally:
            env.close()
            server.release()


@dataclass(slots=True)
class _Frames:
    pixels: NDArray[np.uint8]
    render: NDArray[np.uint8]


class Server:
    """Answers requests with one environment; frames go to `memory`, past `watch`."""

    def __init__(self, *, env: Env, memory: mmap.mmap, watch: FrameWatch) -> None:
        self._env, self._watch = env, watch
        channels, height, width = env.spec.pixels
        flat = np.frombuffer(memory, np.uint8)
        pixels = flat[: channels * height * width].reshape(env.spec.pixels)
        self._frames: _Frames | None = _Frames(pixels, flat[wire.render_offset(env.spec.pixels) :])
        self._action = struct.Struct(f"<{env.spec.action_dim}f")
        self.request_size = wire.REQUEST.size + self._action.size

    def answer(self, request: bytes) -> wire.Reply:
        """Run one request of `request_size` bytes; any failure of the environment becomes a FAILED reply."""
        operation, sequence, argument = wire.REQUEST.unpack_from(request)
        try:
            if operation == wire.OP_RENDER:
                return self._render(sequence, argument)
            if operation == wire.OP_RESET:
                return self._reply(sequence, self._env.reset(argument), opens=True)
            action = np.frombuffer(request, "<f4", offset=wire.REQUEST.size)
            return self._reply(sequence, self._env.step(action), opens=False)
        except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
            return wire.Reply(sequence, wire.FAILED, text=json.dumps(to_fields(error)))

    def release(self) -> None:
        """Drop the views of the shared memory, which cannot be closed while they live."""
        self._frames = None

    def _reply(self, sequence: int, step: Step, *, opens: bool) -> wire.Reply:
        check_row(step, self._env.spec, opens=opens)
        self._watch.see(step.pixels, self._frames.pixels, opens=opens)
        self._frames.pixels[...] = step.pixels
        flags = (step.is_first, step.is_last, step.is_terminal)
        return wire.Reply(sequence, wire.DONE, *flags, float(step.reward), int(step.env_steps))

    def _render(self, sequence: int, size: int) -> wire.Reply:
        frame = self._env.render(size) if hasattr(self._env, "render") else self._enlarged(size)
        if frame.shape != (size, size, 3) or frame.dtype != np.uint8:
            raise EnvError(f"render: expected uint8 {(size, size, 3)}, got {frame.dtype} {frame.shape}")
        self._frames.render[: frame.size] = frame.ravel()
        return wire.Reply(sequence, wire.DONE)

    def _enlarged(self, size: int) -> NDArray[np.uint8]:
        # environments without a camera show their last observation, nearest neighbour
        _, height, width = self._frames.pixels.shape
        rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
        colours = self._env.spec.colours
        newest = self._frames.pixels[-colours:].repeat(3 // colours, axis=0)
        return newest[:, rows[:, None], columns].transpose(1, 2, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
