"""The program that plans, one process for any number of controllers: `python -m trainers.deployment.planner_process`.

It remembers nothing between requests, so it can be killed at any time. It ends when its parent's end of the pipe does.
"""

import json
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from trainers.bundle.bundle import read_bundle
from trainers.deployment.planner_messages import Sizes, pack_answer, unpack_request
from trainers.deployment.planning import DeadlinePlanner
from trainers.process.allocator import tune_allocator
from trainers.process.garbage import short_collections
from trainers.process.realtime import step_behind
from worldmodel.agents.latent_mpc import LatentMPC


def main(folder: str, budget_s: str, sha256: str, fd: str) -> None:
    """Tune, say so, then answer requests until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent decides
    step_behind()
    tune_allocator()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    pipe = Connection(int(fd))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, requests), daemon=True).start()  # before what takes seconds
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone, and `_read` about to notice
        _answer(pipe, requests, folder=folder, budget_s=float(budget_s), sha256=sha256)


def _answer(
    pipe: Connection, requests: "queue.SimpleQueue[bytes]", *, folder: str, budget_s: float, sha256: str
) -> None:
    """What `main` does once somebody reads."""
    bundle = read_bundle(folder)
    if bundle.sha256 != sha256:
        pipe.send_bytes(json.dumps({"error": "the bundle has changed"}).encode())
        return
    agent = bundle.build()
    assert isinstance(agent, LatentMPC), bundle.what
    planner = DeadlinePlanner(agent, budget_s=budget_s)
    sizes = Sizes.of(agent)
    pipe.send_bytes(json.dumps(planner.tuned).encode())
    with short_collections():
        while True:
            number, until, request = unpack_request(_newest(requests), sizes)
            pipe.send_bytes(pack_answer(number, planner.ask(request, until=until)))


def _read(pipe: Connection, requests: "queue.SimpleQueue[bytes]") -> None:
    """Read in a thread: it notices that the parent is gone while the planner is tuned or a plan hangs."""
    try:
        while True:
            requests.put(pipe.recv_bytes(maxlength=1_000_000))
    except (EOFError, OSError):
        os._exit(0)


def _newest(requests: "queue.SimpleQueue[bytes]") -> bytes:
    """Nobody waits for the answers to older ones."""
    message = requests.get()
    while not requests.empty():
        message = requests.get()
    return message


if __name__ == "__main__":
    main(*sys.argv[1:])
