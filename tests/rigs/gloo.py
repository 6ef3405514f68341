"""A function in several real ranks that talk by gloo."""

import socket
from collections.abc import Callable
from typing import Any

from torch import distributed, multiprocessing


def in_ranks(call: Callable[[int], tuple], count: int) -> list[tuple]:
    """What `call(rank)` returns in each of `count` processes, in order of their ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(_main, args=(call, count, port, results), nprocs=count)
    found = dict(results.get() for _ in range(count))
    return [found[rank] for rank in range(count)]


def _main(rank: int, call: Callable[[int], tuple], count: int, port: int, results: Any) -> None:
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=count)
    results.put((rank, call(rank)))
    distributed.destroy_process_group()
