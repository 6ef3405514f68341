"""Segment folders read back what was written, in one piece or what is left of it, and leave the writer alone."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.samplers.prioritised import Prioritised
from datamodules.samplers.recent import Recent
from datamodules.samplers.uniform import Uniform
from datamodules.storage import log_reader
from datamodules.storage.log_reader import LogReader
from datamodules.storage.rows import ReplayMismatch
from datamodules.storage.segment_writer import SegmentWriter
from datamodules.storage.segments import SegmentLog
from datamodules.trajectory import TrajectoryInvalid
from datamodules.windows import ReplayEmpty
from tests.datamodules.recorded_data import SPEC, same, trajectory

LENGTHS = (20, 1, 150, 300, 7)


@pytest.fixture
def written(tmp_path):
    """Five episodes of noise in one folder."""
    episodes = [trajectory(rows, seed, terminal=seed % 2 == 0) for seed, rows in enumerate(LENGTHS)]
    with SegmentWriter(tmp_path / "data", SPEC) as writer:
        for episode in episodes:
            writer.write(episode)
        assert (writer.rows, writer.episodes) == (sum(LENGTHS), len(LENGTHS))
    return tmp_path / "data", episodes


def replayed(folder, episodes, **options):
    """The same episodes through `Replay`, row by row."""
    replay = Replay(spec=SPEC, folder=folder, flush_rows=7, **options)
    for i, episode in enumerate(episodes):
        for step, action in episode.rows():
            replay.append(i % len(replay._streams), step, action)
    return replay


def test_trajectories_come_back_exactly(written):
    folder, episodes = written
    recorded = Recorded(folder)
    assert (recorded.rows, recorded.episodes, recorded.damaged_blocks) == (sum(LENGTHS), len(LENGTHS), 0)
    assert recorded.spec == SPEC
    for _ in range(2):
        assert all(same(one, two) for one, two in zip(recorded.trajectories(), episodes, strict=True))


def test_a_replay_and_a_writer_leave_the_same_data(tmp_path, written):
    folder, episodes = written
    replay = replayed(tmp_path / "replay", episodes, capacity=1000)
    replay.close()
    one, two = Recorded(folder, seed=4), Recorded(tmp_path / "replay", seed=4)
    again = Replay(spec=SPEC, folder=folder, capacity=1000, sampler=Uniform(seed=4))
    for _ in range(3):
        batches = [data.sample(30, 6) for data in (one, two, again)]
        assert all(torch.equal(batches[0].pixels, b.pixels) for b in batches)
        assert all(torch.equal(batches[0].reward, b.reward) for b in batches)
    assert all(same(a, b) for a, b in zip(one.trajectories(), two.trajectories(), strict=True))


def test_ranks_and_streams_are_read_together(tmp_path, written):
    _, episodes = written
    for rank in range(2):
        replayed(tmp_path / f"run/rank_{rank:02d}", episodes[rank::2], capacity=2000, streams=2).close()
    for folders in (tmp_path / "run", [tmp_path / "run/rank_00", tmp_path / "run/rank_01"]):
        found = list(Recorded(folders).trajectories())
        assert len(found) == len(episodes)
        assert all(sum(same(one, two) for two in found) == 1 for one in episodes)


def test_a_folder_that_is_being_written_is_read_and_left_alone(tmp_path, written):
    _, episodes = written
    replay = replayed(tmp_path / "live", episodes, capacity=2000)
    before = {path: path.read_bytes() for path in (tmp_path / "live").rglob("*.*")}
    recorded = Recorded(tmp_path / "live")
    assert {path: path.read_bytes() for path in (tmp_path / "live").rglob("*.*")} == before
    state = json.loads(json.dumps(recorded.state_dict()))
    batch = recorded.sample(40, 5)
    for step, action in episodes[0].rows():
        replay.append(0, step, action)
    recorded.load_state_dict(state)
    assert torch.equal(recorded.sample(40, 5).pixels, batch.pixels) and recorded.episodes == len(episodes)
    with pytest.raises(ReplayMismatch, match="rows"):
        Recorded(tmp_path / "live").load_state_dict(state)


def constant(tag, rows=50):
    """An episode whose frames and rewards all say its number."""
    episode = trajectory(rows, tag)
    reward = np.where(np.arange(rows), tag, 0.0).astype(np.float32)
    return replace(episode, observation={"pixels": np.full_like(episode.pixels, tag)}, reward=reward)


def play(replay, tags):
    for tag in tags:
        for step, action in constant(tag).rows():
            replay.append(0, replace(step, reward=float(step.reward)), action)


def tags_of(recorded):
    """The numbers of the episodes, each of whose rows must agree on it."""
    found = []
    for episode in recorded.trajectories():
        assert set(episode.pixels.reshape(-1).tolist()) == set(episode.reward[1:].tolist()), found
        found.append(int(episode.reward[1]))
    return found


@pytest.mark.parametrize("moment", ["between listing and reading", "while it is listed"])
def test_rows_that_come_while_a_folder_is_opened_are_not_seen(tmp_path, monkeypatch, moment):
    replay = Replay(spec=SPEC, folder=tmp_path, capacity=2000, flush_rows=7)
    play(replay, range(1, 21))
    if moment == "while it is listed":  # segments are begun and dropped under the reader's eyes
        lists, changes = log_reader.segment_paths, iter([range(21, 61)])
        listed = lambda log: (lists(log), play(replay, next(changes, ())))[0]  # noqa: E731
        monkeypatch.setattr(log_reader, "segment_paths", listed)
    else:
        reads = LogReader.read
        monkeypatch.setattr(LogReader, "read", lambda *args: (play(replay, range(21, 81)), reads(*args))[1])
    recorded = Recorded(tmp_path)
    found = tags_of(recorded)
    assert found == list(range(found[0], found[-1] + 1)) and recorded.damaged_blocks == 0
    assert found[-1] == (60 if moment == "while it is listed" else 20)


@pytest.mark.parametrize("goes_back", [False, True])
def test_what_was_opened_stays_whatever_the_run_does(tmp_path, goes_back):
    replay = Replay(spec=SPEC, folder=tmp_path, capacity=2000, flush_rows=7)
    play(replay, range(1, 21))
    state = replay.state_dict()
    play(replay, range(21, 31))
    open_files = len(os.listdir("/proc/self/fd"))
    recorded = Recorded(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == open_files, "thousands of segments must be possible"
    if goes_back:
        replay.load_state_dict(state)
    play(replay, range(101, 201))
    assert tags_of(recorded) == list(range(1, 31))
    assert recorded.sample(50, 5).pixels.shape == (50, 5, *SPEC.pixels)


def test_dropped_and_cut_episodes_read_as_the_replay_serves_them(tmp_path, written):
    _, episodes = written
    replay = replayed(tmp_path / "cut", episodes[:2], capacity=1000)
    for end in (replay.discard_open, lambda: replay.truncate(0), lambda: None):
        for step, action in list(episodes[3].rows())[:17]:
            replay.append(0, step, action)
        end()
    replay.flush()
    found = list(Recorded(tmp_path / "cut").trajectories())
    assert [len(episode) for episode in found] == [20, 1, 17, 17] and not found[2].terminal
    assert np.array_equal(found[2].pixels, episodes[3].pixels[:17])


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_costs_one_block(written, seed):
    folder, episodes = written
    rng = np.random.default_rng(seed)
    path = next((folder / "stream_00").glob("segment_*"))
    content = bytearray(path.read_bytes())
    # the last block is the last episode's 7 rows
    content[rng.integers(len(content) - 600)] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    recorded = Recorded(folder, damage_limit=1.0)
    assert recorded.damaged_blocks == 1 and sum(LENGTHS) - 128 <= recorded.rows < sum(LENGTHS)
    rows = {frame.tobytes() for episode in episodes for frame in episode.pixels}
    for piece in recorded.trajectories():
        piece.check()
        assert all(frame.tobytes() in rows for frame in piece.pixels)
    flat = recorded.sample(200, 1).pixels.reshape(200, -1).numpy()
    assert all(frame.tobytes() in rows for frame in flat)


def test_a_half_written_episode_is_dropped_by_the_next_writer(written, monkeypatch):
    folder, episodes = written
    writer = SegmentWriter(folder, SPEC)
    calls = iter([True, False])

    def fails_second(*arguments):
        if next(calls):
            return append(*arguments)
        raise OSError("no space")

    append = writer._log.append
    monkeypatch.setattr(writer._log, "append", fails_second)
    with pytest.raises(OSError, match="no space"):
        writer.write(episodes[2])
    with pytest.raises(OSError, match="open the folder again"):
        writer.write(episodes[0])
    writer.close()
    assert Recorded(folder).rows == sum(LENGTHS) + 128
    with SegmentWriter(folder, SPEC) as writer:
        assert (writer.rows, writer.episodes) == (sum(LENGTHS), len(LENGTHS))
        writer.write(episodes[0])
    with SegmentWriter(folder, SPEC) as writer:
        assert (writer.rows, writer.episodes) == (sum(LENGTHS) + 20, len(LENGTHS) + 1)
    found = list(Recorded(folder).trajectories())
    assert all(same(one, two) for one, two in zip(found, [*episodes, episodes[0]], strict=True))


def test_refuses_what_does_not_fit(tmp_path, written):
    folder, _ = written
    with pytest.raises(ReplayMismatch, match="neither"):
        Recorded(tmp_path / "nothing")
    with pytest.raises(ReplayEmpty, match="301"):
        Recorded(folder).sample(2, 301)
    other = replace(SPEC, images={"pixels": (3, 8, 8)})
    SegmentWriter(tmp_path / "other", other).close()
    with pytest.raises(ReplayMismatch, match="expected observed 3x4x4 as in"):
        Recorded([folder, tmp_path / "other"])
    with SegmentWriter(tmp_path / "new", SPEC) as writer, pytest.raises(TrajectoryInvalid, match="pixels"):
        writer.write(trajectory(5, 0, spec=other))
    shutil.rmtree(folder / "stream_00")
    with pytest.raises(ReplayMismatch, match="stream_"):
        Recorded(folder)


def test_held_out_episodes_are_never_drawn(written):
    folder, episodes = written
    recorded = Recorded(folder, holdout=0.4)
    assert recorded.held_out == [1, 3] and recorded.lengths.tolist() == list(LENGTHS)
    assert recorded.env_steps == sum(int(episode.env_steps.sum()) for episode in episodes)
    assert same(recorded.trajectory(3), episodes[3])
    drawn = {row.tobytes() for row in recorded.sample(2000, 1).pixels[:, 0].numpy()}
    for number, episode in enumerate(episodes):
        found = sum(row.tobytes() in drawn for row in episode.pixels)
        assert (found == 0) == (number in recorded.held_out), number


def test_a_holdout_keeps_one_and_leaves_one(tmp_path):
    with SegmentWriter(tmp_path, SPEC) as writer:
        writer.write(trajectory(5, 0))
        writer.write(trajectory(5, 1))
    assert [Recorded(tmp_path, holdout=share).held_out for share in (0.0, 0.01, 0.99)] == [[], [1], [1]]


SAMPLERS = {"uniform": Uniform, "prioritised": Prioritised, "recent": lambda seed: Recent(seed=seed, half_life=20.0)}


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_draws_what_is_held_out(written, name):
    recorded = Recorded(written[0], sampler=SAMPLERS[name](seed=1), holdout=0.4)
    assert len(recorded.held_out) == 2
    kept = {i for i in range(len(LENGTHS)) if i not in recorded.held_out and LENGTHS[i] >= 5}
    begins = np.cumsum(LENGTHS) - LENGTHS
    seen = set()
    for _ in range(30):
        batch = recorded.sample(40, 5)
        first = batch.windows[:, 2].numpy()
        found = np.searchsorted(begins, first, side="right") - 1
        assert (first + 5 <= (begins + LENGTHS)[found]).all()
        seen |= set(found.tolist())
        recorded.feedback(batch.windows, torch.rand(40) * 100)
    assert seen == kept


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_state_continues_the_draws_of_its_sampler(written, name):
    make = SAMPLERS[name]
    one, two = (Recorded(written[0], sampler=make(seed=seed), holdout=0.4) for seed in (1, 2))
    for _ in range(5):
        batch = one.sample(20, 4)
        one.feedback(batch.windows, torch.rand(20) * 100)
    cursor = one.cursor()
    one.sample(20, 4)
    one.rewind(cursor)
    two.load_state_dict(one.state_dict())
    for _ in range(5):
        batches = [data.sample(20, 4) for data in (one, two)]
        assert torch.equal(batches[0].windows, batches[1].windows)
        for data in (one, two):
            data.feedback(batches[0].windows, batches[0].reward.abs().sum(1) * 100)


def test_a_state_of_another_sampler_is_refused(written):
    state = Recorded(written[0], sampler=Prioritised()).state_dict()
    with pytest.raises(ReplayMismatch, match=r"data\.sampler: expected uniform"):
        Recorded(written[0]).load_state_dict(state)


def test_a_writer_that_fails_to_open_lets_go_of_the_folder(written, monkeypatch):
    folder, _ = written

    def fails(self):
        raise OSError("for a moment")

    open_files = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(SegmentLog, "_commit", fails)
        with pytest.raises(OSError, match="moment"):
            SegmentWriter(folder, SPEC)
        with pytest.raises(OSError, match="moment"):
            Replay(spec=SPEC, folder=folder, capacity=1000)
    assert len(os.listdir("/proc/self/fd")) == open_files
    SegmentWriter(folder, SPEC).close()
