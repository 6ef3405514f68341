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
from collections.abc import Mapping
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
from datamodules.envs.wrapper import source_of
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


class OneLane:
    """A single environment as the only lane."""

    def __init__(self, env: Env) -> None:
        self._env, self.spec = env, env.spec
        self._seen: Observation = {}

    def reset(self, seeds: dict[int, int]) -> dict[int, Step]:
        return self._kept(self._env.reset(seeds[0]))

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step]:
        return self._kept(self._env.step(actions[0]))

    def _kept(self, step: Step) -> dict[int, Step]:
        self._seen = step.observation
        return {0: step}

    def render(self, lane: int, size: int) -> NDArray[np.uint8]:
        """What the source draws; without a camera it shows its last observation, nearest neighbour."""
        source, images = source_of(self._env), self.spec.images
        if isinstance(source, Renders):
            return source.render(size)
        if not images:
            raise EnvError("render: expected an environment that draws or shows an image, got one of vectors only")
        name, (_, height, width) = next(iter(images.items()))
        rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
        colours = self.spec.colours_of(name)
        newest = self._seen[name][-colours:].repeat(3 // colours, axis=0)
        return newest[:, rows[:, None], columns].transpose(1, 2, 0)

    def close(self) -> None:
        self._env.close()


class Server:
    """Answers requests with lanes, past a watch for each; what they show and the rows go to `memory`."""

    def __init__(self, *, lanes: Lanes, memory: mmap.mmap, watches: list[FrameWatch]) -> None:
        self._lanes, self._watches = lanes, watches
        self._shared: wire.Shared | None = wire.shared_views(lanes.spec, memory, len(watches))

    def answer(self, request: bytes) -> wire.Reply:
        """Run one request; any failure of the environment becomes a FAILED reply."""
        operation, sequence, view = wire.REQUEST.unpack_from(request)
        try:
            if operation == wire.OP_RENDER:
                self._render(*divmod(view, wire.VIEW))
            else:
                self._advance(request, opens=operation == wire.OP_RESET)
            return wire.Reply(sequence, wire.DONE)
        except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
            _show(error)
            return wire.Reply(sequence, wire.FAILED, text=json.dumps(to_fields(error)))

    def release(self) -> None:
        """Drop the views of the shared memory, which cannot be closed while they live."""
        self._shared = None

    def _advance(self, request: bytes, *, opens: bool) -> None:
        asked = wire.asked_lanes(request, self._lanes.spec.action_dim)
        if opens:
            rows = self._lanes.reset({lane: seed for lane, (seed, _) in asked.items()})
        else:
            rows = self._lanes.step({lane: action for lane, (_, action) in asked.items()})
        for lane in asked:
            self._store(lane, rows[lane], opens=opens)

    def _store(self, lane: int, step: Step, *, opens: bool) -> None:
        assert self._shared is not None
        check_row(step, self._lanes.spec, opens=opens)
        observed = self._shared.observed[lane]
        self._watches[lane].see(step.observation, observed, opens=opens)
        for name, view in observed.items():
            view[...] = step.observation[name]
        flags = (step.is_first, step.is_last, step.is_terminal)
        wire.ROW.pack_into(self._shared.rows, lane * wire.ROW.size, step.reward, *flags, step.env_steps)

    def _render(self, lane: int, size: int) -> None:
        assert self._shared is not None
        frame = self._lanes.render(lane, size)
        if frame.shape != (size, size, 3) or frame.dtype != np.uint8:
            raise EnvError(f"render: expected uint8 {(size, size, 3)}, got {frame.dtype} {frame.shape}")
        self._shared.frame[: frame.size] = frame.ravel()


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
        lanes, watches, facts = _open(config)
    except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
        _show(error)
        end.sendall(wire.Reply(0, wire.FAILED, text=json.dumps(to_fields(error))).pack())
        return
    ready = {"spec": lanes.spec.to_json(), "pid": os.getpid(), **facts}
    size, request_size = (measure(lanes.spec, len(watches)) for measure in (wire.memory_size, wire.request_size))
    os.ftruncate(memory_fd, size)
    with mmap.mmap(memory_fd, size) as memory:
        server = Server(lanes=lanes, memory=memory, watches=watches)
        try:
            end.sendall(wire.Reply(0, wire.READY, text=json.dumps(ready)).pack())
            while True:
                end.sendall(server.answer(wire.receive(end, request_size)).pack())
        finally:
            lanes.close()
            server.release()


def _show(error: Exception) -> None:
    # our own errors say in one sentence what to do
    if not isinstance(error, EnvError):
        traceback.print_exception(error)
        sys.stderr.flush()


def _open(config: dict) -> tuple[Lanes, list[FrameWatch], dict[str, Any]]:
    """The lanes with a watch for each, their first frames looked at, and what is told of their source."""
    which = {name: config[name] for name in ("source", "kwargs", "visuals")}
    numbers = {name: config[name] for name in ("blank_frames", "frozen_frames")}
    source: Env | Lanes
    lanes: Lanes
    if config["lanes"]:
        source = lanes = open_lanes(**which, lanes=config["lanes"])
        # a vector environment has no state that could be told by lane
        watches = [FrameWatch(None, **numbers) for _ in range(config["lanes"])]
    else:
        env = open_env(**which)
        source, lanes = source_of(env), OneLane(env)
        watches = [FrameWatch(source, **numbers)]
    for lane, row in lanes.reset({lane: config["seed"] + lane for lane in range(len(watches))}).items():
        watches[lane].first(row.observation)
    renderer = source.renderer if isinstance(source, NamesRenderer) else "none"
    return lanes, watches, {"renderer": renderer, "notes": list(source.notes) if isinstance(source, Notes) else []}


if __name__ == "__main__":
    main(sys.argv[1:])
