"""A 50x50 batch of 64x64x3 frames from 100k rows, beside a contiguous numpy gather of the same bytes."""

from typing import Any

import numpy as np

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from trainers.timing import alternate, median_ms
from worldmodel.spec import EnvSpec

OPTIONS = {"repeats": 60}


def measure(overrides: list[str], *, repeats: int) -> dict[str, Any]:
    """A 50x50 sample from 100k rows, alternating with a gather of as many contiguous rows."""
    rows, side = 100_000, 50
    spec = EnvSpec(task="synthetic", pixels=(3, 64, 64), action_dim=1, action_repeat=1, episode_steps=500)
    replay = Replay(spec=spec, capacity=rows, streams=1)
    frame = np.random.default_rng(0).integers(0, 256, spec.pixels, np.uint8)
    for t in range(rows):
        step = Step(frame, 0.0, t % 500 == 0, t % 500 == 499, False, 1)
        replay.append(0, step, np.zeros(1, np.float32))
    frames = np.random.default_rng(1).integers(0, 256, (rows, 3 * 64 * 64), np.uint8)
    starts = np.random.default_rng(2).integers(0, rows - side, (repeats + 3, side))

    def gather(k: int) -> None:
        np.concatenate([frames[s : s + side] for s in starts[k]])

    ours, theirs = alternate(lambda k: replay.sample(side, side), gather, repeats)
    return {
        "batch_ms": median_ms(ours),
        "gather_ms": median_ms(theirs),
        "p99_ms": float(1e3 * np.quantile(ours, 0.99)),
    }
