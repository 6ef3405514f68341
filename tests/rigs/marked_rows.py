"""Rows that carry their own number in every field, so that a reader knows at sight what it was given."""

from dataclasses import dataclass

import numpy as np

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="marked", images={"pixels": (3, 4, 4)}, action_dim=2, action_repeat=2, episode_steps=60)
STRIDE = 97  # of the numbers that fill a frame's bytes and an action


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """What one stored row must look like when it is read."""

    number: int
    is_first: bool
    is_last: bool
    is_terminal: bool


def row(mark: Mark) -> tuple[Step, np.ndarray]:
    """The arrival row of a mark, and the action that led to it."""
    pixels = np.full(48, mark.number % 251, np.uint8)
    pixels[:8] = np.array([mark.number], "<u8").view(np.uint8)
    action = np.full(2, 0.0 if mark.is_first else mark.number % STRIDE / STRIDE, np.float32)
    flags = (mark.is_first, mark.is_last, mark.is_terminal)
    return Step({"pixels": pixels.reshape(3, 4, 4)}, float(mark.number), *flags, 0 if mark.is_first else 2), action


def served(replay: Replay) -> set[Mark]:
    """Every row that can be sampled, each field checked against its mark; raises AssertionError."""
    # every row is missed with probability exp(-40)
    return read(replay.sample(40 * replay.rows, 1)) if replay.rows else set()


def read(batch: Batch) -> set[Mark]:
    """The marks of all rows of a batch, each field checked; raises AssertionError."""
    flat = batch.pixels.flatten(0, 1).flatten(1).numpy()
    numbers = np.ascontiguousarray(flat[:, :8]).view("<u8")[:, 0]
    first = batch.is_first.flatten().numpy()
    actions = np.where(first, 0.0, numbers % STRIDE / STRIDE).astype(np.float32)
    assert (flat[:, 8:] == (numbers % 251)[:, None]).all(), "pixels"
    assert (batch.reward.flatten().numpy() == numbers).all(), "reward"
    assert (batch.action.flatten(0, 1).numpy() == actions[:, None]).all(), "action"
    flags = (first, batch.is_last.flatten().numpy(), batch.is_terminal.flatten().numpy())
    return {Mark(int(n), bool(f), bool(e), bool(t)) for n, f, e, t in zip(numbers, *flags, strict=True)}
