"""A 50x50 batch of 64x64x3 frames from memory or mapped files, beside a contiguous numpy gather of the same bytes."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.replay import Replay
from datamodules.storage.budget import parse_bytes
from datamodules.storage.rows import row_bytes
from datamodules.storage.segment_writer import SegmentWriter
from datamodules.trajectory import Trajectory
from trainers.benchmarks.shared.timing import alternate, contiguous_gather, median_ms
from trainers.command.configuration import BadConfig
from worldmodel.spec import EnvSpec

SIDE, EPISODE = 50, 500
SPEC = EnvSpec(task="synthetic", images={"pixels": (3, 64, 64)}, action_dim=1, action_repeat=1, episode_steps=EPISODE)
GATHER_ROWS = 100_000  # the contiguous array is no larger: it would push mapped files out of memory
PLENTY = parse_bytes("1TB")


def measure(*, repeats: int = 200, rows: int = 100_000, storage: str = "memory", folder: str = "") -> dict[str, Any]:
    """Sample from `rows` rows, in turns with a gather of as many contiguous rows; files lie under `folder`."""
    if storage not in ("memory", "mapped"):
        raise BadConfig(f"storage: expected memory or mapped, got {storage!r}")
    with tempfile.TemporaryDirectory(dir=folder or None) as path:
        with SegmentWriter(Path(path), SPEC) as writer:
            for seed in range(-(-rows // EPISODE)):
                writer.write(_episode(seed, min(EPISODE, rows - seed * EPISODE)))
        limit = PLENTY if storage == "memory" else row_bytes(SPEC) * rows - 1
        replay = Replay(spec=SPEC, capacity=rows, folder=Path(path), memory_limit_bytes=limit)
        assert replay.rows == rows and replay.budget.mapped == (storage == "mapped")
        results = _time(replay, min(rows, GATHER_ROWS), repeats)
        replay.close()
    return {"rows": rows, "storage": storage, **results}


def _episode(seed: int, rows: int) -> Trajectory:
    pixels = np.random.default_rng(seed % 8).integers(0, 256, (rows, *SPEC.pixels), np.uint8)
    env_steps = np.ones(rows, np.int32)
    return Trajectory({"pixels": pixels}, np.zeros((rows, 1), np.float32), np.zeros(rows, np.float32), False, env_steps)


def _time(replay: Replay, rows: int, repeats: int) -> dict[str, float]:
    gather = contiguous_gather(SPEC, rows, SIDE, SIDE)
    ours, theirs = alternate(lambda _: replay.sample(SIDE, SIDE), lambda _: gather(), repeats)
    return {
        "batch_ms": median_ms(ours),
        "gather_ms": median_ms(theirs),
        "ratio": float(np.median(ours) / np.median(theirs)),
        "p99_over_median": float(np.quantile(ours, 0.99) / np.median(ours)),
    }
