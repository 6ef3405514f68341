"""Rows dealt out to another number of shards: each is in one of them, as it was, wherever a rank is killed."""

import signal
from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.reshard import OldShards, Piece, deal, reshard
from datamodules.storage.budget import ReplayDamaged
from datamodules.storage.rows import ReplayMismatch
from datamodules.storage.shards import current_shards, publish_generation, remove_other_shards, shard_folder
from tests.rigs.forked import Forked
from tests.rigs.io_calls import failing
from tests.rigs.marked_rows import SPEC, Mark, read, row

STREAMS, CAPACITY, FLUSH_ROWS = 2, 400, 7


def record(folder, first, rng, *, episodes=6, is_open=True):
    """A shard with episodes of both streams by turns, one dropped, the newest perhaps open; its state and marks."""
    replay = Replay(spec=SPEC, folder=folder, streams=STREAMS, capacity=CAPACITY, flush_rows=FLUSH_ROWS)
    marks, number = [], first
    for episode in range(episodes):
        length, ends = int(rng.integers(1, 40)), bool(rng.integers(2))
        rows = [Mark(number + t, t == 0, t == length - 1, ends and t == length - 1) for t in range(length)]
        if episode == episodes - 1 and is_open:
            rows[-1] = replace(rows[-1], is_last=False, is_terminal=False)
        for mark in rows:
            replay.append(episode % STREAMS, *row(mark))
        number += length
        if episode == 1 and not rows[-1].is_last:
            replay.truncate(1)
        marks += rows
        if episode == 2:  # what is dropped leaves a gap in the numbers
            for t in range(5):
                replay.append(0, *row(Mark(number + t, t == 0, False, False)))
            replay.discard_open()
    state = replay.state_dict()
    kept = marks_of(replay)
    # what came after the checkpoint is not of it
    if replay.is_open((episodes - 1) % STREAMS):
        replay.append((episodes - 1) % STREAMS, *row(Mark(number + 50, False, True, False)))
    replay.append(0, *row(Mark(number + 100, True, False, False)))
    replay.close()
    return state, kept, number


def marks_of(replay):
    return read(replay.every(1)) if replay.rows else set()


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def open_new(folder, shard, shards, streams=STREAMS):
    capacity = CAPACITY * 3 // shards
    return Replay(
        spec=SPEC, folder=shard_folder(folder, shard, generation=1), streams=streams, capacity=capacity, flush_rows=7
    )


def deal_out(folder, states, shards, streams=STREAMS, capacity=None, only=None):
    folders = [shard_folder(folder, rank) for rank in range(len(states))]
    done = []
    for shard in range(shards) if only is None else [only]:
        old = OldShards(folders, states, spec=SPEC, damage_limit=0.05)
        options = {"shard": shard, "shards": shards, "streams": streams, "flush_rows": FLUSH_ROWS}
        capacity = CAPACITY * 3 // shards if capacity is None else capacity
        done.append(reshard(old, shard_folder(folder, shard, generation=1), spec=SPEC, capacity=capacity, **options))
    return done


@pytest.fixture(params=[0, 1])
def recorded(request, tmp_path):
    """Three shards, their states, and the marks of all rows that the states count."""
    rng = np.random.default_rng(request.param)
    states, marks, number = [], set(), 1
    for rank in range(3):
        state, kept, number = record(shard_folder(tmp_path, rank), number, rng, is_open=rank == 1)
        states.append(state)
        marks |= kept
        number += 1000
    return tmp_path, states, marks


@pytest.mark.parametrize(("shards", "streams"), [(1, 2), (2, 2), (5, 2), (2, 1)])
def test_every_row_is_in_one_shard(recorded, shards, streams):
    folder, states, marks = recorded
    before = everything(folder)
    done = deal_out(folder, states, shards, streams)
    assert {path: content for path, content in everything(folder).items() if path in before} == before
    found = Counter()
    totals = np.zeros(2, int)
    sizes = []
    for shard in range(shards):
        replay = open_new(folder, shard, shards, streams)
        found.update(marks_of(replay))
        totals += replay.env_steps, replay.episodes
        sizes.append(replay.rows)
        assert replay.damaged_blocks == 0 and not any(replay.is_open(i) for i in range(streams))
        replay.close()
    # an open episode ends where it stood
    still_open = {mark for mark in marks if not mark.is_last and replace(mark, is_last=True) in found}
    expected = marks - still_open | {replace(mark, is_last=True) for mark in still_open}
    assert len(still_open) <= 1 and found == Counter(dict.fromkeys(expected, 1))
    stored = [stream for state in states for stream in state["streams"]]
    opened = sum(stream["is_open"] for stream in stored)
    assert totals.tolist() == [
        sum(s["env_steps"] for s in stored),
        sum(s["episodes"] for s in stored) + opened,
    ]
    assert done[0].rows == len(marks) and done[0].outdated == done[0].lost == 0
    assert max(sizes) - min(sizes) <= 3 * 40  # rows of an episode for each stream


def test_full_shards_lose_only_what_has_no_place(recorded):
    folder, states, marks = recorded
    capacity = 2 * (len(marks) // 6)
    done = deal_out(folder, states, 3, capacity=capacity)
    found = Counter()
    for shard in range(3):
        replay = Replay(
            spec=SPEC, folder=shard_folder(folder, shard, generation=1), streams=2, capacity=capacity, flush_rows=7
        )
        found.update(mark.number for mark in marks_of(replay))
        assert replay.rows == capacity
        replay.close()
    assert max(found.values()) == 1 and len(found) == 3 * capacity == done[0].rows
    assert done[0].outdated == len(marks) - 3 * capacity < 6


def test_a_full_ring_gives_what_it_serves(tmp_path):
    """Rows that left the ring are on disk still: they are not brought back."""
    replay = Replay(spec=SPEC, folder=shard_folder(tmp_path, 0), streams=1, capacity=30, flush_rows=FLUSH_ROWS)
    for number in range(50):
        replay.append(0, *row(Mark(number, number % 20 == 0, number % 20 == 19, False)))
    replay.truncate(0)
    state, kept = replay.state_dict(), marks_of(replay)
    replay.close()
    assert {mark.number for mark in kept} == set(range(20, 50))
    deal_out(tmp_path, [state], 2, streams=1, capacity=30)
    found, env_steps = Counter(), 0
    for shard in range(2):
        replay = open_new(tmp_path, shard, 2, streams=1)
        found.update(marks_of(replay))
        env_steps += replay.env_steps
        replay.close()
    assert found == Counter(dict.fromkeys(kept, 1)) and env_steps == state["streams"][0]["env_steps"]


def test_pieces_are_dealt_by_age_and_cut_only_without_room():
    pieces = [Piece(0, 0, 10, age=30), Piece(0, 10, 40, age=0), Piece(1, 0, 20, age=5)]
    dealt = deal(pieces, [30, 30])
    assert dealt == [[Piece(0, 10, 40, age=0)], [Piece(0, 0, 10, age=30), Piece(1, 0, 20, age=5)]]
    assert deal(pieces, [20, 20, 20]) == [
        [Piece(0, 20, 40, age=0, opens=False)],
        [Piece(0, 0, 10, age=30), Piece(0, 10, 20, age=20)],
        [Piece(1, 0, 20, age=5)],
    ]
    assert deal(pieces, [20, 30]) == [[Piece(1, 0, 20, age=5)], [Piece(0, 10, 40, age=0)]]


def test_pieces_of_episodes_stay_apart(tmp_path):
    """Windows over the ends of episodes go from a last row to a first one, never into the middle of an episode."""
    states, first = [], 0
    for rank in range(3):
        replay = Replay(spec=SPEC, folder=shard_folder(tmp_path, rank), streams=1, capacity=30, flush_rows=FLUSH_ROWS)
        for number in range(50):
            replay.append(0, *row(Mark(first + number, number % 25 == 0, number % 25 == 24, False)))
        states.append(replay.state_dict())
        first += 100
        replay.close()
    (done,) = deal_out(tmp_path, states, 1, streams=1, capacity=90)
    assert (done.rows, done.outdated) == (88, 2)
    options = {"spec": SPEC, "folder": shard_folder(tmp_path, 0, generation=1), "capacity": 90, "flush_rows": 7}
    replay = Replay(**options, across_episodes=True)
    assert replay.rows == 88 and replay.damaged_blocks == 0
    batch = replay.sample(2000, 2)
    after_the_end = batch.is_last[:, 0]
    assert after_the_end.any() and batch.is_first[after_the_end, 1].all()
    replay.close()


def test_another_history_is_refused(recorded):
    folder, states, _ = recorded
    with pytest.raises(ReplayMismatch, match="another log's"):
        deal_out(folder, [states[1], states[0], states[2]], 2)


def test_what_cannot_be_read_is_declared(recorded):
    folder, states, marks = recorded
    segment = min((shard_folder(folder, 0) / "stream_00").glob("segment_*"))
    content = bytearray(segment.read_bytes())
    content[200] ^= 1
    segment.write_bytes(content)
    folders = [shard_folder(folder, rank) for rank in range(3)]
    with pytest.raises(ReplayDamaged):
        OldShards(folders, states, spec=SPEC, damage_limit=0.0)
    old = OldShards(folders, states, spec=SPEC, damage_limit=0.5)
    assert 0 < old.lost_rows <= FLUSH_ROWS and old.rows == len(marks) - old.lost_rows


def test_killed_at_every_write_nothing_is_lost(tmp_path):
    """SIGKILL in every fifth file operation of a shard's making; then it is made again."""
    state, kept, _ = record(shard_folder(tmp_path, 0), 1, np.random.default_rng(0), episodes=3, is_open=False)
    before, points = everything(tmp_path), 0
    for n in count(1, 5):
        child = Forked(lambda n=n: _killed_at(n, tmp_path, state), log=tmp_path / "log")
        code = child.wait(timeout_s=60)
        assert code in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        assert {path: path.read_bytes() for path in before} == before
        if code == 0:
            break
        points += 1
        if points % 3 == 0:
            deal_out(tmp_path, [state], 2)
            found, rows = Counter(), 0
            for shard in range(2):
                replay = open_new(tmp_path, shard, 2)
                assert replay.damaged_blocks == 0
                found.update(marks_of(replay))
                rows += replay.rows
                replay.close()
            assert found == Counter(dict.fromkeys(kept, 1)) and rows == len(kept), n
    assert points > 10


def _killed_at(n, folder, state):
    with failing("kill", n):
        deal_out(folder, [state], 2, only=0)
    return 0


def test_readers_take_the_published_generation(recorded):
    folder, states, marks = recorded
    deal_out(folder, states, 2)
    assert current_shards(folder) == folder
    assert len(Recorded(folder).folders) == 3
    publish_generation(folder, 1)
    assert current_shards(folder) == folder / "generation_01"
    recorded_now = Recorded(folder)
    assert len(recorded_now.folders) == 2 and recorded_now.rows == len(marks)
    recorded_now.close()
    remove_other_shards(folder, 1, ranks=2)
    assert sorted(path.name for path in folder.iterdir()) == ["generation", "generation_01"]
    remove_other_shards(folder, 1, ranks=1)
    assert [path.name for path in (folder / "generation_01").iterdir()] == ["rank_00"]
