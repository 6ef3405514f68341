"""Replay serves the rows that were stored, all windows alike, and refuses what it cannot store or serve."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from datamodules.samplers.prioritised import Prioritised
from datamodules.samplers.uniform import Uniform
from datamodules.storage.budget import ReplayTooLarge
from datamodules.storage.rows import ReplayMismatch, ReplayRowInvalid, row_bytes
from datamodules.windows import ReplayEmpty
from tests.datamodules.counting_rows import SPEC, Counter, check, marks, windows


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Syncs matter to power losses only, and to the test that counts them."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.parametrize("streams", [1, 3])
def test_hundred_thousand_transitions_match_the_reference(tmp_path, streams):
    replay = Replay(spec=SPEC, capacity=400 * streams, streams=streams, folder=tmp_path, flush_rows=7)
    counters = [Counter(replay, stream) for stream in range(streams)]
    rng, seen = np.random.default_rng(0), 0
    for _ in range(60):
        for counter in counters:
            counter.play(int(rng.integers(1, 40)))
        if replay.rows > 200:
            batch = replay.sample(220, 10)
            check(batch, counters)
            seen += 2200
    assert seen > 100_000 and replay.rows <= 400 * streams
    assert replay.env_steps == sum(2 * (not row.is_first) for c in counters for row in c.rows)
    assert replay.episodes == 60 * streams
    assert {int(s) for s in marks(replay.sample(200, 5))[1]} == set(range(streams))
    replay.close()


def test_every_window_has_the_same_chance():
    replay = Replay(spec=SPEC, capacity=64, sampler=Uniform(seed=3))
    counter = Counter(replay)
    for length in (30, 9, 3, 25, 4, 17):
        counter.play(length)
    counter.play(6, last=False)
    valid = windows(counter.rows, 4, first=len(counter.rows) - 64)
    draws = 300 * len(valid)
    starts, counts = np.unique(marks(replay.sample(draws, 4))[0][:, 0], return_counts=True)
    assert set(starts.tolist()) == valid
    chi_square, freedom = ((counts - 300) ** 2 / 300).sum(), len(valid) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_across_episodes_every_row_has_the_same_chance():
    replay = Replay(spec=SPEC, capacity=64, sampler=Uniform(seed=3), across_episodes=True)
    counter = Counter(replay)
    for length in (30, 9, 3, 25, 4, 17):
        counter.play(length)
    counter.play(6, last=False)
    check(batch := replay.sample(600, 4), [counter], across=True)
    first = len(counter.rows) - 64
    starts, counts = np.unique(marks(replay.sample(300 * 61, 4))[0][:, 0], return_counts=True)
    assert set(starts.tolist()) == set(range(first, first + 61))
    assert abs(((counts - 300) ** 2 / 300).sum() - 60) < 4 * np.sqrt(120)
    assert replay.longest == replay.count_rows(40) == 64
    assert batch.is_first[:, 1:].any()
    inside = replay.every(4)
    assert set(marks(inside)[0][:, 0].tolist()) == windows(counter.rows, 4, first=first)


@pytest.mark.parametrize("sampler", [Uniform, Prioritised])
def test_across_episodes_no_window_holds_rows_that_are_not_neighbours(sampler):
    replay = Replay(spec=SPEC, capacity=90, sampler=sampler(seed=1), across_episodes=True)
    counter, gone, rng = Counter(replay), set(), np.random.default_rng(5)
    for _ in range(40):
        counter.play(int(rng.integers(1, 9)))
        if rng.random() < 0.3:
            begin = len(counter.rows)
            counter.play(int(rng.integers(1, 9)), last=False)
            replay.discard_open()
            gone |= set(range(begin, len(counter.rows)))
        if replay.longest >= 5:
            found = marks(replay.sample(50, 5))[0]
            assert (np.diff(found, axis=1) == 1).all() and not gone & set(found.flatten().tolist())
    assert len(gone) > 20


@pytest.mark.parametrize("extra", range(0, 40, 3))
def test_windows_never_cross_the_write_head(extra):
    replay = Replay(spec=SPEC, capacity=20)
    counter = Counter(replay)
    counter.play(11)
    counter.play(9 + extra, last=False)
    got = set(marks(replay.sample(600, 3))[0][:, 0].tolist())
    assert got == windows(counter.rows, 3, first=len(counter.rows) - 20)


def test_batches_are_not_shared_with_later_ones_or_the_store():
    replay = Replay(spec=SPEC, capacity=100)
    counter = Counter(replay)
    counter.play(50)
    first = replay.sample(8, 8)
    before = first.pixels.clone()
    for _ in range(5):
        replay.sample(8, 8).pixels.fill_(7)
    counter.play(100)
    assert torch.equal(first.pixels, before)
    check(replay.sample(50, 8), [counter])


def test_same_seed_same_draws_and_state_restores_them(tmp_path):
    first, second = (
        Replay(spec=SPEC, capacity=100, sampler=Uniform(seed=5), folder=tmp_path / str(i)) for i in range(2)
    )
    for replay in (first, second):
        Counter(replay).play(60)
    assert torch.equal(first.sample(9, 3).reward, second.sample(9, 3).reward)
    state = json.loads(json.dumps(first.state_dict()))
    expected = [first.sample(9, 3).reward for _ in range(3)]
    first.load_state_dict(state)
    assert all(torch.equal(first.sample(9, 3).reward, reward) for reward in expected)
    other = Replay(spec=SPEC, capacity=100, sampler=Uniform(seed=6))
    Counter(other).play(60)
    assert not torch.equal(other.sample(9, 3).reward, second.sample(9, 3).reward)


def test_rewarded_rows_are_those_with_another_reward_than_most():
    replay = Replay(spec=SPEC, capacity=40, streams=2)
    assert replay.rewarded_rows() == 0

    def play(stream, *rewards):
        """An episode, whose opening row has a reward that no action led to."""
        for t, reward in enumerate((9.0, *rewards)):
            last, pixels = t == len(rewards), np.zeros((3, 4, 4), np.uint8)
            step = Step({"pixels": pixels}, reward, t == 0, last, False, 2 * (t > 0))
            replay.append(stream, step, np.zeros(2, np.float32))

    play(0, 0, 0, 0, 0)
    assert replay.rewarded_rows() == 0
    play(1, 0, 0, 1, 0, 2, 0)
    assert replay.rewarded_rows() == 2
    play(0, *[-1.0] * 12)  # the usual one now, so that zeros are what is rare
    assert replay.rewarded_rows() == 4 + 6
    play(1, *range(100, 115))
    play(1, *range(200, 219))  # what left the ring does not count
    assert replay.rewarded_rows() == 4 + 19
    dense = Replay(spec=SPEC, capacity=100)
    Counter(dense).play(51)
    assert dense.rewarded_rows() == 49  # each is as frequent as the others


def test_refuses_what_does_not_fit_in_memory():
    needed = row_bytes(SPEC) * 1000
    assert needed == 1000 * (48 + 8 + 4 + 3 + 4)
    Replay(spec=SPEC, capacity=1000, memory_limit_bytes=needed)
    with pytest.raises(ReplayTooLarge, match=f"{needed} bytes, {needed - 1} are"):
        Replay(spec=SPEC, capacity=1000, memory_limit_bytes=needed - 1)
    with pytest.raises(ReplayTooLarge):
        Replay(spec=SPEC, capacity=10**13)


def test_refuses_another_folder_or_state(tmp_path):
    replay = Replay(spec=SPEC, capacity=80, folder=tmp_path)
    with pytest.raises(ReplayMismatch, match="in use"):
        Replay(spec=SPEC, capacity=80, folder=tmp_path)
    Counter(replay).play(9)
    state = replay.state_dict()
    replay.close()
    with pytest.raises(ReplayMismatch, match="action_dim: expected 3, got 2"):
        Replay(spec=replace(SPEC, action_dim=3), capacity=80, folder=tmp_path)
    with pytest.raises(ReplayMismatch, match=r"data\.envs: expected 1 as stored there, got 2"):
        Replay(spec=SPEC, capacity=80, streams=2, folder=tmp_path)
    with pytest.raises(ReplayMismatch, match="capacity"):
        Replay(spec=SPEC, capacity=90, folder=tmp_path).load_state_dict(state)
    other = Replay(spec=SPEC, capacity=80, folder=tmp_path / "other")
    with pytest.raises(ReplayMismatch, match="rows"):
        other.load_state_dict(state)
    Counter(other).play(8)
    Counter(other).play(8)
    with pytest.raises(ReplayMismatch, match="rows"):
        other.load_state_dict(state)


def test_what_a_start_without_a_row_left_behind_binds_nobody(tmp_path):
    Replay(spec=replace(SPEC, action_dim=3), capacity=60, streams=2, folder=tmp_path).close()
    replay = Replay(spec=SPEC, capacity=80, folder=tmp_path)
    counter = Counter(replay)
    counter.play(9)
    replay.close()
    assert [path.name for path in tmp_path.glob("stream_*")] == ["stream_00"]
    (tmp_path / "stream_00" / "segment_000000000000.bin").unlink()  # rows that are lost are not rows that never were
    with pytest.raises(ReplayMismatch, match="action_dim: expected 3, got 2"):
        Replay(spec=replace(SPEC, action_dim=3), capacity=80, folder=tmp_path)


def test_empty_replay_says_what_is_missing():
    replay = Replay(spec=SPEC, capacity=80)
    Counter(replay).play(5)
    assert replay.longest == 5
    Counter(replay).play(3)
    with pytest.raises(ReplayEmpty, match=r"expected 6 consecutive .* 8 rows .* 5 .*set data\.length=5 or less"):
        replay.sample(2, 6)
    assert "80 rows" in replay.summary() and replay.sample(2, 5).reward.shape == (2, 5)


GOOD = Step({"pixels": np.zeros((3, 4, 4), np.uint8)}, 0.0, True, False, False, 0)
ZERO = np.zeros(2, np.float32)
BAD_ROWS = {
    "pixels": [
        (replace(GOOD, observation={"pixels": np.zeros(shape, dtype)}), ZERO)
        for shape, dtype in (((4, 4, 3), "u1"), ((3, 4, 4), "f4"))
    ],
    "action": [(GOOD, np.zeros(3, np.float32)), (GOOD, np.zeros(2)), (GOOD, np.float32([np.nan, 0]))],
    "reward": [(replace(GOOD, reward=value), ZERO) for value in (np.nan, np.inf, -np.inf)],
    "is_first": [(replace(GOOD, is_first=False), ZERO), (GOOD, ZERO + 1)],
    "is_terminal": [(replace(GOOD, is_terminal=True), ZERO)],
    "env_steps": [(replace(GOOD, env_steps=-1), ZERO)],
}


@pytest.mark.parametrize(("key", "step", "action"), [(key, *row) for key, rows in BAD_ROWS.items() for row in rows])
def test_bad_rows_are_refused(key, step, action):
    replay = Replay(spec=SPEC, capacity=80)
    with pytest.raises(ReplayRowInvalid, match=key):
        replay.append(0, step, action)
    replay.append(0, GOOD, ZERO)
    with pytest.raises(ReplayRowInvalid, match="is_first"):
        replay.append(0, GOOD, ZERO)
    with pytest.raises(ReplayRowInvalid, match="stream"):
        replay.append(1, GOOD, ZERO)
    assert replay.rows == 1
