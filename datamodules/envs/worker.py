"""Environments in a process of their own: `python -m datamodules.envs.worker SOCKET_FD MEMORY_FD PARENT_PID`.

The parent (remote.py) sends a JSON config, then reset, step and render requests. This process never imports
torch: Mesa's and Triton's LLVM crash when they share a process.
"""

import faulthandler
import json
import mmap
import os
import signal
import socket
import sys

from datamodules.envs import wire
from datamodules.envs.errors import to_fields
from datamodules.envs.frame_watch import FrameWatch
from datamodules.envs.lineage import follow, lead_forks
from datamodules.envs.protocol import Env, Lanes
from datamodules.envs.server import LaneServer, Server
from datamodules.envs.sources import open_env, open_lanes


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
            if follow(parent):
                lead_forks()
                _serve(end, memory_fd, config)
        except (wire.Closed, BrokenPipeError, ConnectionResetError):
            return


def _serve(end: socket.socket, memory_fd: int, config: dict) -> None:
    try:
        env, watches = _open(config)
    except Exception as error:  # noqa: BLE001 - whatever an environment raises must reach the parent as text
        end.sendall(wire.Reply(0, wire.FAILED, text=json.dumps(to_fields(error))).pack())
        return
    ready = {"spec": env.spec.to_json(), "renderer": getattr(env, "renderer", "none")}
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
