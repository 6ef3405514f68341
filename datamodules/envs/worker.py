"""Environments in a process of their own: `python -m datamodules.envs.worker SOCKET_FD MEMORY_FD PARENT_PID`.

The parent (remote.py) sends a JSON config, then reset, step and render requests. This process never imports
torch: Mesa's and Triton's LLVM crash when they share a process.
"""

import faulthandler
import json
import mmap
import os
import socket
import sys
import traceback
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.checks import check_row
from datamodules.envs.errors import BlankFrame, EnvError, FrozenFrame, to_fields
from datamodules.envs.processes import LEARNERS, guard, leave_signals
from datamodules.envs.protocol import (
    DrawsOtherStates,
    Env,
    FingerprintsState,
    Lanes,
    NamesRenderer,
    Notes,
    Renders,
    Step,
)
from datamodules.envs.sources import open_env, open_lanes
from datamodules.envs.wrapper import Wrapper, source_of
from datamodules.observation import Observation


class FrameWatch:
    """Counts frames of one constant colour in a row, and the states that went by while every image stayed the same.

    blank_frames, frozen_frames: how many are too many, 0 for never. Frozen frames need a source that
    FingerprintsState; without it they are not looked for, since a world may stand still. A source that still
    DrawsOtherStates shows a world that is out of view, and is counted anew.
    """

    def __init__(self, source: Env | None, *, blank_frames: int, frozen_frames: int) -> None:
        self._fingerprint = (
            source.state_fingerprint if frozen_frames and isinstance(source, FingerprintsState) else None
        )
        self._source = source
        self._blank_frames, self._frozen_frames = blank_frames, frozen_frames
        self._blank: dict[str, int] = {}
        self._states: set[bytes] = set()

    def first(self, observation: Observation) -> None:
        """Look at the first images of a worker's life; raises BlankFrame unless blank frames are allowed."""
        for name, image in _images(observation):
            if self._blank_frames and is_blank(image):
                text = f"the first frame{_of(name)} is one constant colour"
                raise BlankFrame(f"{text}: the renderer draws nothing, check MUJOCO_GL")

    def see(self, observation: Observation, last: Observation, *, opens: bool) -> None:
        """Look at images [C, h, w] and at those before them; raises BlankFrame or FrozenFrame."""
        images = _images(observation)
        for name, image in images:
            # counted across episodes: those of some tasks are shorter than `blank_frames`
            self._blank[name] = self._blank.get(name, 0) + 1 if is_blank(image) else 0
            if 0 < self._blank_frames <= self._blank[name]:
                if name in self._out_of_view():
                    self._blank[name] = 0
                    continue
                raise BlankFrame(f"{self._blank[name]} frames{_of(name)} in a row are one constant colour")
        if self._fingerprint is None or not images:
            return
        # what one camera sees may stand still while another one's view changes
        if opens or not all(np.array_equal(image, last[name]) for name, image in images):
            self._states = set()
        self._states.add(self._fingerprint())
        if len(self._states) > self._frozen_frames:
            if self._out_of_view():
                self._states = set()
                return
            raise FrozenFrame(f"the frame stayed the same in {len(self._states)} different states")

    def _out_of_view(self) -> set[str]:
        return self._source.draws_other_states() if isinstance(self._source, DrawsOtherStates) else set()


def _images(observation: Observation) -> list[tuple[str, NDArray[np.uint8]]]:
    return [(name, values) for name, values in observation.items() if values.dtype == np.uint8]


def _of(name: str) -> str:
    return "" if name == "pixels" else f" of {name}"


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether every channel of a frame [C, h, w] is constant."""
    # a few pixels first: nearly every frame is settled by them
    if (pixels[:, ::13, ::13] != pixels[:, :1, :1]).any():
        return False
    return bool((pixels == pixels[:, :1, :1]).all())


class Server:
    """Answers requests with one environment; frames go to `memory`, past one watch."""

    has_lanes = False

    def __init__(self, *, env: Any, memory: mmap.mmap, watches: list[FrameWatch]) -> None:
        self._env, self._watches = env, watches
        self._observed, self._frame = wire.shared_views(env.spec, memory, len(watches))
        self.request_size = wire.REQUEST.size + wire.body_size(env.spec, len(watches) * self.has_lanes)

    def answer(self, request: bytes) -> wire.Reply:
        """Run one request of `request_size` bytes; any failure of the environment becomes a FAILED reply."""
        operation, sequence, argument = wire.REQUEST.unpack_from(request)
        try:
            if operation == wire.OP_RENDER:
                return self._render(sequence, *divmod(argument, wire.VIEW))
            return self._advance(sequence, request, seed=argument, opens=operation == wire.OP_RESET)
        except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
            _show(error)
            return wire.Reply(sequence, wire.FAILED, text=json.dumps(to_fields(error)))

    def release(self) -> None:
        """Drop the views of the shared memory, which cannot be closed while they live."""
        self._observed, self._frame = [], np.empty(0, np.uint8)

    def _advance(self, sequence: int, request: bytes, *, seed: int, opens: bool) -> wire.Reply:
        if opens:
            step = self._env.reset(seed)
        else:
            step = self._env.step(np.frombuffer(request, "<f4", offset=wire.REQUEST.size).copy())
        self._store(0, step, opens=opens)
        return wire.Reply(sequence, wire.DONE, *_facts(step))

    def _store(self, lane: int, step: Step, *, opens: bool) -> None:
        check_row(step, self._env.spec, opens=opens)
        observed = self._observed[lane]
        self._watches[lane].see(step.observation, observed, opens=opens)
        for name, view in observed.items():
            view[...] = step.observation[name]

    def _render(self, sequence: int, lane: int, size: int) -> wire.Reply:
        frame = self._draw(lane, size)
        if frame.shape != (size, size, 3) or frame.dtype != np.uint8:
            raise EnvError(f"render: expected uint8 {(size, size, 3)}, got {frame.dtype} {frame.shape}")
        self._frame[: frame.size] = frame.ravel()
        return wire.Reply(sequence, wire.DONE)

    def _draw(self, lane: int, size: int) -> NDArray[np.uint8]:
        source = source_of(self._env)
        return source.render(size) if isinstance(source, Renders) else self._enlarged(lane, size)

    def _enlarged(self, lane: int, size: int) -> NDArray[np.uint8]:
        # environments without a camera show their last observation, nearest neighbour
        images = self._env.spec.images
        if not images:
            raise EnvError("render: expected an environment that draws or shows an image, got one of vectors only")
        name, (_, height, width) = next(iter(images.items()))
        rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
        colours = self._env.spec.colours_of(name)
        newest = self._observed[lane][name][-colours:].repeat(3 // colours, axis=0)
        return newest[:, rows[:, None], columns].transpose(1, 2, 0)


class LaneServer(Server):
    """The same with lanes, a watch for each: a request has all lanes, and a reply the rows of those it concerns."""

    has_lanes = True

    def _advance(self, sequence: int, request: bytes, *, seed: int, opens: bool) -> wire.Reply:
        lanes = np.frombuffer(request, wire.lane_type(self._env.spec.action_dim), offset=wire.REQUEST.size).copy()
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
    leave_signals(LEARNERS)
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
    source = source_of(env) if isinstance(env, Wrapper) else env
    ready = {
        "spec": env.spec.to_json(),
        "renderer": source.renderer if isinstance(source, NamesRenderer) else "none",
        "pid": os.getpid(),
        "notes": list(source.notes) if isinstance(source, Notes) else [],
    }
    size = wire.memory_size(env.spec, len(watches))
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
        watches = [FrameWatch(source_of(env), **numbers)]
        watches[0].first(env.reset(config["seed"]).observation)
        return env, watches
    lanes = open_lanes(**which, lanes=config["lanes"])
    # a vector environment has no state that could be told by lane
    watches = [FrameWatch(None, **numbers) for _ in range(config["lanes"])]
    for lane, row in lanes.reset({lane: config["seed"] + lane for lane in range(config["lanes"])}).items():
        watches[lane].first(row.observation)
    return lanes, watches


if __name__ == "__main__":
    main(sys.argv[1:])
