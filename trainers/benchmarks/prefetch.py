"""How long the learner waits for its batches, with the next one prepared in a thread and without."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from datamodules.data_module import WindowDataModule
from trainers.benchmarks.shared.options import configuration
from trainers.benchmarks.shared.timing import filled_replay, synthetic_spec, training_step
from trainers.build.agent import build_agent
from trainers.training.module import WorldModelModule
from worldmodel.interfaces import Batch


def measure(overrides: list[str], *, repeats: int = 30, rows: int = 20_000) -> dict[str, Any]:
    """`repeats` updates of the configured agent each way, in turns, on windows of `rows` rows of noise."""
    config = configuration(overrides)
    spec, data = synthetic_spec(config, action_dim=1), config["data"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = WorldModelModule.of(config, build_agent(config, spec).to(device))
    update = training_step(config, module, device)
    replay = filled_replay(spec, rows)
    seconds = np.zeros((2, 2, repeats + 3))
    feeds = [
        WindowDataModule(replay, batch=data["batch"], length=data["length"], prefetch=way) for way in (False, True)
    ]
    for k in range(repeats + 3):
        for way, feed in enumerate(feeds):
            seconds[way, :, k] = _turn(feed, update, device)
    for feed in feeds:
        feed.teardown("fit")
    wait, work = seconds[:, 0, 3:], seconds[:, 1, 3:]
    share, total = wait.sum(1) / (wait + work).sum(1), 1e3 * np.median(wait + work, axis=1)
    return {
        "wait_share": {"without": float(share[0]), "prefetch": float(share[1])},
        "update_and_wait_ms": {"without": float(total[0]), "prefetch": float(total[1])},
        "batch": [data["batch"], data["length"], *spec.pixels],
        "device": device.type,
    }


def _turn(feed: WindowDataModule, update: Callable[[Batch], None], device: torch.device) -> tuple[float, float]:
    """Seconds of waiting and of computing in the second of two updates: the first one may prepare its batch."""
    batch = feed.next_batch().to(device)
    feed.prepare()
    update(batch)
    start = time.perf_counter()
    batch = feed.next_batch().to(device)
    ready = time.perf_counter()
    update(batch)
    return ready - start, time.perf_counter() - ready
