"""Every loop that a run spends its time in: ms, GFLOP, and how much of this machine's ceilings it uses."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers.benchmarks.shared.options import configuration
from trainers.benchmarks.shared.timing import in_bf16, median_ms
from trainers.benchmarks.speed.ceilings import copy, product
from trainers.benchmarks.speed.counting import gflop, launches
from trainers.benchmarks.speed.loops import Loop, Machinery, loops
from trainers.build.environments import open_pool
from trainers.machine.device import usable_device
from trainers.reporting.tables import as_text

COLUMNS = ("name", "ms", "quartiles", "gflop", "mb", "share", "limit", "launches", "peer", "ratio")
WARM_UP = 3


def measure(
    overrides: list[str], *, repeats: int = 20, device: str = "cuda" if torch.cuda.is_available() else "cpu"
) -> dict[str, Any]:
    """All loops, the ceilings and the peers by turns, so that a busy machine disturbs all alike."""
    config, where = configuration(overrides), usable_device(device)
    with open_pool(config, 1) as pool, tempfile.TemporaryDirectory() as folder:
        parts = Machinery(config, pool, where, Path(folder))
        known = list(loops(parts))
        multiply, products = product(where, torch.bfloat16 if in_bf16(config) else torch.float32)
        move, bytes_moved = copy(where)
        calls = [multiply, move, *(loop.peer[1] for loop in known if loop.peer)]
        others = [Loop("", call) for call in calls]
        seconds = _by_turns([*known, *others], repeats, where)
        peaks = {"compute": products / np.median(seconds[len(known)])}
        peaks["memory"] = bytes_moved / np.median(seconds[len(known) + 1])
        peer_ms = iter(map(median_ms, seconds[len(known) + 2 :]))
        rows = [
            _row(loop, times, peaks, next(peer_ms) if loop.peer else None, where)
            for loop, times in zip(known, seconds, strict=False)
        ]
        parts.metrics.finalize("")
        parts.replay.close()
    print(as_text([*map(_shown, rows)], COLUMNS))
    print(f"{peaks['compute']:.4g} GFLOP/s of products, {peaks['memory']:.4g} GB/s of copies, read and written")
    shape = [*parts.shape, *(size for image in parts.spec.images.values() for size in image)]
    return {
        **{"rows": rows, "peak_gflop_per_s": peaks["compute"], "peak_gb_per_s": peaks["memory"], "device": str(where)},
        **{"precision": config["trainer"]["precision"], "task": parts.spec.task, "batch": shape},
    }


def _by_turns(timed: list[Loop], repeats: int, device: torch.device) -> Any:
    """Seconds [loops, repeats] of each call, finished on its device."""
    seconds = np.zeros((len(timed), WARM_UP + repeats))
    for k in range(WARM_UP + repeats):
        for row, loop in enumerate(timed):
            loop.prepare()
            _finish(device)
            start = time.perf_counter()
            loop.call()
            _finish(device)
            seconds[row, k] = time.perf_counter() - start
    return seconds[:, WARM_UP:]


def _row(loop: Loop, seconds: Any, peaks: dict[str, float], peer_ms: float | None, device: torch.device) -> Any:
    ms = median_ms(seconds)
    work = {"compute": _prepared(loop, gflop) if loop.counts else None, "memory": loop.gb}
    shares = {name: amount / peaks[name] / (ms / 1e3) for name, amount in work.items() if amount}
    limit = max(shares, key=lambda name: shares[name], default=None)
    return {
        **{"name": loop.name, "ms": ms, "quartiles_ms": [*map(float, 1e3 * np.quantile(seconds, (0.25, 0.75)))]},
        **{"gflop": work["compute"], "gb": loop.gb, "limit": limit, "share_of_peak": limit and shares[limit]},
        "launches": _prepared(loop, lambda call: launches(call, device)),
        **{"peer": loop.peer and loop.peer[0], "peer_ms": peer_ms, "ratio": peer_ms and ms / peer_ms},
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    quartiles = " ".join(f"{ms:.3g}" for ms in row["quartiles_ms"])  # of which nobody needs a fourth digit
    return {**row, "quartiles": quartiles, "mb": row["gb"] and 1e3 * row["gb"], "share": row["share_of_peak"]}


def _prepared(loop: Loop, count: Callable[[Callable[[], object]], Any]) -> Any:
    loop.prepare()
    return count(loop.call)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
