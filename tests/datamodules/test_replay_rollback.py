"""A replay's rows are closed, forgotten, found again and rolled back as if it had never gone on."""

import json
import os

import pytest
import torch

from datamodules.replay import Replay
from datamodules.samplers.uniform import Uniform
from datamodules.storage.rows import ReplayMismatch
from tests.datamodules.counting_rows import SPEC, Counter, abandon, check, served


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Syncs matter to power losses only, and to the test that counts them."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def test_truncate_closes_at_the_last_good_row(tmp_path):
    replay = Replay(spec=SPEC, capacity=50, folder=tmp_path, flush_rows=4)
    counter = Counter(replay)
    for length in (5, 8):
        counter.play(length, last=False)
        replay.truncate(0)
        counter.rows[-1].is_last = True
    replay.truncate(0)
    assert not replay.is_open(0) and replay.episodes == 2
    counter.play(4)
    check(replay.sample(300, 3), [counter])
    abandon(replay)
    again = Replay(spec=SPEC, capacity=50, folder=tmp_path)
    check(again.sample(300, 3), [counter])
    assert again.episodes == 3 and again.rows == 17


@pytest.mark.parametrize("length", [3, 4, 11])
def test_discard_open_forgets_the_open_rows_only(tmp_path, length):
    replay = Replay(spec=SPEC, capacity=60, folder=tmp_path, flush_rows=4)
    counter = Counter(replay)
    counter.play(9)
    kept, steps = served(replay), replay.env_steps
    counter.play(length, last=False)
    replay.discard_open()
    assert served(replay) == kept and replay.env_steps == steps
    counter.play(5)
    replay.discard_open()
    expected = kept | set(range(9 + length, 14 + length))
    assert served(replay) == expected
    abandon(replay)
    again = Replay(spec=SPEC, capacity=60, folder=tmp_path)
    assert served(again) == expected and again.env_steps == replay.env_steps and again.damaged_blocks == 0


def test_reopened_folder_can_discard_its_open_episode(tmp_path):
    replay = Replay(spec=SPEC, capacity=60, folder=tmp_path, flush_rows=4)
    counter = Counter(replay)
    counter.play(9)
    counter.play(11, last=False)
    replay.close()
    again = Replay(spec=SPEC, capacity=60, folder=tmp_path)
    again.discard_open()
    assert served(again) == set(range(9)) and again.env_steps == 16


def test_reopened_folder_continues(tmp_path):
    replay = Replay(spec=SPEC, capacity=100, folder=tmp_path, flush_rows=10)
    counter = Counter(replay)
    counter.play(25)
    counter.play(17, last=False)
    replay.close()
    counter.replay = replay = Replay(spec=SPEC, capacity=100, folder=tmp_path, flush_rows=10)
    assert replay.rows == 42 and replay.is_open(0)
    for t in range(30):
        counter.step(last=t == 29)
    counter.play(50)
    check(replay.sample(500, 6), [counter])


def test_old_segments_are_deleted_when_no_state_needs_them(tmp_path):
    replay = Replay(spec=SPEC, capacity=64, folder=tmp_path, flush_rows=4)
    counter = Counter(replay)
    for _ in range(100):
        counter.play(16)
    size = sum(path.stat().st_size for path in (tmp_path / "stream_00").iterdir())
    assert size < 2 * 64 * 100
    replay.state_dict()
    for _ in range(20):
        counter.play(16)
    assert sum(path.stat().st_size for path in (tmp_path / "stream_00").iterdir()) < 3 * 64 * 100


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
def test_rollback_equals_never_having_gone_on(tmp_path, wrapped, fresh):
    replay = Replay(spec=SPEC, capacity=80, streams=2, folder=tmp_path, flush_rows=6)
    counters = [Counter(replay, stream) for stream in range(2)]
    for counter in counters:
        for length in (13, 20, 9) if wrapped else (13,):
            counter.play(length)
        counter.play(7, last=False)
    state = json.loads(json.dumps(replay.state_dict()))
    later = []

    def go_on(replay: Replay) -> list[torch.Tensor]:
        drawn = []
        for counter in counters:
            counter.replay, counter.rows[20 + 29 * wrapped :] = replay, []
            for t in range(25):
                counter.step(last=t == 24)
            drawn += [replay.sample(20, 5).reward, replay.sample(20, 5).pixels]
        return drawn

    later = go_on(replay)
    replay.state_dict()
    if fresh:
        abandon(replay)
        replay = Replay(spec=SPEC, capacity=80, streams=2, folder=tmp_path, flush_rows=6, sampler=Uniform(seed=99))
    replay.load_state_dict(state)
    totals = (replay.rows, replay.env_steps, replay.episodes)
    assert all(torch.equal(a, b) for a, b in zip(go_on(replay), later, strict=True))
    replay.load_state_dict(state)
    assert (replay.rows, replay.env_steps, replay.episodes) == totals
    replay.close()
    reopened = Replay(spec=SPEC, capacity=80, streams=2, folder=tmp_path)
    assert (reopened.rows, reopened.env_steps, reopened.episodes) == totals and reopened.damaged_blocks == 0


def test_rollback_undoes_truncate_and_discard(tmp_path):
    replay = Replay(spec=SPEC, capacity=80, folder=tmp_path)
    counter = Counter(replay)
    counter.play(9)
    counter.play(6, last=False)
    state, before = replay.state_dict(), served(replay)
    for spoil in (lambda: replay.truncate(0), replay.discard_open):
        spoil()
        replay.load_state_dict(state)
        assert replay.is_open(0) and served(replay) == before
        check(replay.sample(200, 3), [counter])


def test_rollback_in_memory_drops_later_rows():
    replay = Replay(spec=SPEC, capacity=80)
    counter = Counter(replay)
    counter.play(9)
    counter.play(6, last=False)
    state, before = replay.state_dict(), served(replay)
    replay.truncate(0)
    counter.play(30)
    replay.load_state_dict(state)
    del counter.rows[15:]
    assert replay.is_open(0) and served(replay) == before and replay.episodes == 1
    check(replay.sample(200, 3), [counter])
    with pytest.raises(ReplayMismatch, match="rows"):
        Replay(spec=SPEC, capacity=80).load_state_dict(state)


def test_lost_end_of_the_log_does_not_stop_a_resume(tmp_path):
    replay = Replay(spec=SPEC, capacity=80, folder=tmp_path, flush_rows=5)
    counter = Counter(replay)
    for _ in range(3):
        counter.play(10)
    state = replay.state_dict()
    replay.close()
    path = max((tmp_path / "stream_00").glob("segment_*"))
    path.write_bytes(path.read_bytes()[:-20])
    for _ in range(2):
        replay = Replay(spec=SPEC, capacity=80, folder=tmp_path, flush_rows=5, damage_limit=0.2)
        replay.load_state_dict(state)
        assert replay.damaged_blocks == 1 and served(replay) == set(range(25))
        counter = Counter(replay, rows=counter.rows[:30], episode=3)
        counter.play(10)
        assert served(replay) == {*range(25), *range(30, 40)}
        check(replay.sample(300, 5), [counter])
        replay.close()
