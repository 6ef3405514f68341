"""The oracle of sampled transitions finds nothing where nothing is wrong, and whatever is."""

import os

import numpy as np
import pytest

from datamodules.replay import Replay
from datamodules.storage.stream import StreamTable
from tests.rigs.samples import mismatches
from tests.rigs.slow_reader import Reference
from tests.rigs.watermarks import SPEC, Life, actions, frames, marks
from trainers import benchmark

SMALL = ["samples", "transitions=4000", "rows=900"]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Syncs matter to power losses only."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A replay after a short life, and what its files say."""
    folder = tmp_path_factory.mktemp("stored")
    life = Life(lambda: Replay(spec=SPEC, capacity=900, streams=2, folder=folder), seed=3)
    life.fill(950)
    life.replay.flush()
    yield life.replay, Reference(folder, SPEC)
    life.replay.close()


def test_nothing_differs():
    found = benchmark.main(SMALL, "tests.rigs")
    assert found["mismatches"] == 0 and found["rings_turned"] >= 2
    assert found["transitions"] == 4000 * 9 and set(found["samplers"]) == {"uniform", "prioritised", "recent"}


def shifted(key):
    def spoil(batch):
        getattr(batch, key)[0, 1:] = getattr(batch, key)[0, :-1].clone()

    return spoil


def one_bit(batch):
    batch.pixels[3, 5, 2, 7, 7] ^= 1


def goes_on_in_another(batch):
    """Every row is right by itself."""
    for key in ("pixels", "action", "reward", "is_first", "is_last", "is_terminal"):
        getattr(batch, key)[0, 5:] = getattr(batch, key)[1, 5:]


def never_last(batch):
    batch.is_last[:] = False


def never_terminal(batch):
    batch.is_terminal[:] = False


def misnamed(batch):
    batch.windows[4, 2] += 1


SPOILS = [shifted("action"), shifted("reward"), shifted("pixels"), one_bit, goes_on_in_another]


@pytest.mark.parametrize("spoil", [*SPOILS, never_last, never_terminal, misnamed])
def test_whatever_is_spoiled_is_found(stored, spoil):
    replay, reference = stored
    batch = replay.sample(2000, 10)
    assert not mismatches(batch, reference, numbered=True).any()
    spoil(batch)
    assert mismatches(batch, reference, numbered=True).any()


def test_a_window_across_two_episodes_is_found(stored):
    replay, reference = stored
    ends = [int(stop) for _, stop in replay._current().spans[0]][:-1]
    windows = np.array([[0, 0, end - 5] for end in ends if end - 5 >= replay._streams[0].tail])
    assert len(windows) and mismatches(replay._stream_table.gather(windows, 10), reference, numbered=True).any(1).all()


def test_batches_that_share_memory_are_found(monkeypatch):
    gather, last = StreamTable.gather, []

    def shared(*arguments):
        batch = gather(*arguments)
        if last and last[0].pixels.shape == batch.pixels.shape:
            last[0].pixels.copy_(batch.pixels)
        last[:] = [batch]
        return batch

    monkeypatch.setattr(StreamTable, "gather", shared)
    assert benchmark.main(SMALL, "tests.rigs")["mismatches"] > 0


def test_marks_are_read_back():
    mark = np.array([[2, 70_000, 3], [0, 1, 2**31]])
    assert (marks(frames(mark)) == mark).all()
    assert not actions(mark, np.array([True, True])).any()
