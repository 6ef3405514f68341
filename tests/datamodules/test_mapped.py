"""Frames that stay on disk are served as those in memory are: bit for bit, whatever happened before."""

import gc
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from datamodules.samplers.uniform import Uniform
from datamodules.storage.budget import ReplayTooLarge, available_bytes, parse_bytes, plan, rows_of
from datamodules.storage.frames import MappedFrames, MemoryFrames
from datamodules.storage.rows import row_bytes
from datamodules.windows import ReplayEmpty
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="noise", images={"pixels": (3, 16, 16)}, action_dim=1, action_repeat=1, episode_steps=40)


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Nothing here loses power."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def opened(folder: Path, *, mapped: bool, capacity: int = 300, streams: int = 2) -> Replay:
    limit = row_bytes(SPEC) * capacity - mapped
    budget = {"capacity": capacity, "streams": streams, "flush_rows": 5, "memory_limit_bytes": limit}
    replay = Replay(spec=SPEC, folder=folder, sampler=Uniform(seed=3), **budget)
    assert replay.budget.mapped == mapped
    return replay


def same_draw(one: Replay, two: Replay, length: int) -> bool:
    draws = []
    for replay in (one, two):
        try:
            draws.append(replay.sample(8, length))
        except ReplayEmpty:
            draws.append(None)
    if None in draws:
        return draws == [None, None]
    columns = [f.name for f in fields(draws[0]) if f.name != "observation"]
    seen = [draw.observation for draw in draws]
    same = seen[0].keys() == seen[1].keys() and all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])
    return same and all(torch.equal(getattr(draws[0], name), getattr(draws[1], name)) for name in columns)


class Pair:
    """A replay in memory and a mapped one that live through the same."""

    def __init__(self, root: Path, seed: int, monkeypatch) -> None:
        # frames of a few rows only are in memory, so that most are read from files
        monkeypatch.setattr("datamodules.storage.budget.TAIL_BYTES", 0)
        self.rng, self.root = np.random.default_rng(seed), root
        self.replays = [opened(root / name, mapped=name == "mapped") for name in ("memory", "mapped")]
        self.states: list[list[dict]] = []

    def append(self) -> None:
        stream, rows = int(self.rng.integers(2)), int(self.rng.integers(1, 60))
        for t in range(rows):
            first = not self.replays[0].is_open(stream)
            frame = self.rng.integers(0, 256, SPEC.pixels, np.uint8)
            last = t == rows - 1 and self.rng.random() < 0.6
            step = Step({"pixels": frame}, float(self.rng.normal()), first, last, False, 1)
            for replay in self.replays:
                replay.append(stream, step, np.zeros(1, np.float32))

    def truncate(self) -> None:
        stream = int(self.rng.integers(2))
        for replay in self.replays:
            replay.truncate(stream)

    def discard(self) -> None:
        for replay in self.replays:
            replay.discard_open()

    def save(self) -> None:
        self.states.append([json.loads(json.dumps(replay.state_dict())) for replay in self.replays])

    def rollback(self) -> None:
        if self.states:
            del self.states[int(self.rng.integers(max(0, len(self.states) - 2), len(self.states))) + 1 :]
            for replay, state in zip(self.replays, self.states[-1], strict=True):
                replay.load_state_dict(state)

    def reopen(self) -> None:
        cursors = [replay._sampler.state_dict() for replay in self.replays]
        for i, name in enumerate(("memory", "mapped")):
            self.replays[i].close()
            self.replays[i] = opened(self.root / name, mapped=name == "mapped")
            self.replays[i]._sampler.load_state_dict(cursors[i])


@pytest.mark.parametrize("seed", range(12))
def test_mapped_equals_memory_through_any_life(tmp_path, monkeypatch, seed):
    pair = Pair(tmp_path, seed, monkeypatch)
    acts = [pair.append, pair.append, pair.append, pair.truncate, pair.discard, pair.save, pair.rollback, pair.reopen]
    served = 0
    for _ in range(60):
        acts[int(pair.rng.integers(len(acts)))]()
        one, two = pair.replays
        assert (one.rows, one.episodes, one.env_steps) == (two.rows, two.episodes, two.env_steps)
        for length in (1, 7, 30):
            assert same_draw(one, two, length)
        served += one.rows
    assert served > 3000 and one.damaged_blocks == two.damaged_blocks == 0


def test_files_that_left_the_ring_are_unmapped(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.storage.budget.TAIL_BYTES", 0)
    replay = opened(tmp_path, mapped=True, streams=1)
    for n in range(3000):
        t = n % 20
        step = Step({"pixels": np.full(SPEC.pixels, n % 251, np.uint8)}, float(n), t == 0, t == 19, False, 1)
        replay.append(0, step, np.zeros(1, np.float32))
        if n % 100 == 99:
            batch = replay.sample(200, 5)
            assert (batch.pixels.float().mean((2, 3, 4)) == batch.reward % 251).all()
    gc.collect()
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert 1 < len(maps) <= len(list(tmp_path.rglob("segment_*"))) <= 14
    assert not any("deleted" in line for line in maps)
    assert sum(path.stat().st_size for path in tmp_path.rglob("segment_*")) <= replay.budget.disk_bytes


@pytest.mark.parametrize("capacity", [400, 2000])
def test_the_disk_budget_holds_while_a_state_is_pinned(tmp_path, capacity):
    replay, most = opened(tmp_path, mapped=False, streams=1, capacity=capacity), 0
    for n in range(4 * capacity):
        step = Step({"pixels": np.zeros(SPEC.pixels, np.uint8)}, 0.0, n % 20 == 0, n % 20 == 19, False, 1)
        replay.append(0, step, np.zeros(1, np.float32))
        if n == capacity:
            replay.state_dict()
        if n % 20 == 0:
            most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("segment_*")))
    assert 0.7 * replay.budget.disk_bytes < most <= replay.budget.disk_bytes


def test_rolling_back_leaves_another_reader_s_map_readable(tmp_path):
    replay = opened(tmp_path, mapped=True, streams=1, capacity=2000)
    state = None
    for n in range(400):
        step = Step({"pixels": np.full(SPEC.pixels, n % 251, np.uint8)}, 0.0, n % 20 == 0, n % 20 == 19, False, 1)
        replay.append(0, step, np.zeros(1, np.float32))
        state = replay.state_dict() if n == 99 else state
    frames, out = replay._streams[0].frames, np.empty((300, 768), np.uint8)
    frames.copy(60, out)
    maps = dict(frames._maps)
    replay.load_state_dict(state)
    assert maps and all(int(whole[-1]) >= 0 for whole in maps.values())  # cut files would end the process here


def test_both_kinds_of_frames_copy_the_same(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "file"
    frames = rng.integers(0, 256, (50, 6), np.uint8)
    path.write_bytes(b"head" + frames[:20].tobytes() + b"gap" + frames[20:40].tobytes())
    memory, mapped = MemoryFrames(np.empty((50, 6), np.uint8)), MappedFrames(frame_bytes=6, capacity=13)
    memory.load(0, frames[:27])
    for n in range(27, 50):
        memory.put(n, frames[n])
        mapped.put(n, frames[n])
    mapped.located(0, path, 4)
    mapped.located(20, path, 4 + 120 + 3)
    for start in range(50):
        for stop in range(start + 1, 51):
            outs = np.zeros((2, stop - start, 6), np.uint8)
            memory.copy(start, outs[0])
            mapped.copy(start, outs[1])
            assert np.array_equal(outs[0], frames[start:stop]) and np.array_equal(outs[1], outs[0])


def test_budget_says_what_is_taken_and_refuses_the_rest(tmp_path, monkeypatch):
    row = row_bytes(SPEC)
    options = {"streams": 2, "flush_rows": 10, "processes": 1}
    whole = plan(SPEC, 10_000, folder=tmp_path, memory_limit=10_000 * row, **options)
    assert not whole.mapped and whole.memory_bytes == 10_000 * row
    spilled = plan(SPEC, 200_000, folder=tmp_path, memory_limit=200_000 * row - 1, **options)
    assert spilled.mapped and spilled.memory_bytes < 0.3 * 200_000 * row < spilled.disk_bytes
    assert "mapped" in str(spilled) and "GB of disk" in str(spilled)
    with pytest.raises(ReplayTooLarge, match=r"data\.memory_budget"):
        plan(SPEC, 200_000, folder=tmp_path, memory_limit=spilled.memory_bytes - 1, **options)
    with pytest.raises(ReplayTooLarge, match="capacity of at most 9999 rows"):
        plan(SPEC, 10_000, folder=None, memory_limit=10_000 * row - 1, **options)
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(whole.disk_bytes))
    plan(SPEC, 10_000, folder=tmp_path / "new/er", memory_limit=10_000 * row, **options)
    with pytest.raises(ReplayTooLarge, match=rf"{2 * whole.disk_bytes} bytes of disk, {whole.disk_bytes} are"):
        plan(SPEC, 10_000, folder=tmp_path, memory_limit=10_000 * row, **{**options, "processes": 2})
    half = plan(SPEC, 1000, folder=None, memory_limit=None, **options)
    assert half.memory_bytes == 1000 * row < available_bytes()


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_capacity_in_bytes():
    assert rows_of(77, SPEC) == 77 and rows_of("1GB", SPEC) == 10**9 // row_bytes(SPEC)
    assert [parse_bytes(text) for text in ("12GB", "1.5 GiB", "3b", "2TB")] == [12 * 10**9, 3 * 2**29, 3, 2 * 10**12]
    for bad in ("12", "GB", "-1GB", "1 XB", "1e9B", ""):
        with pytest.raises(ValueError, match="expected a number of bytes"):
            parse_bytes(bad)


def test_a_segment_that_was_torn_and_begun_again_is_read_as_it_is_now(tmp_path, monkeypatch):
    # few frames in memory, and segments of a block each: rows are read from the file whose name came again
    monkeypatch.setattr("datamodules.storage.budget.TAIL_BYTES", 0)
    monkeypatch.setattr("datamodules.storage.budget.MAX_SEGMENT_BYTES", 1)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (60, *SPEC.pixels), np.uint8)

    def play(replay: Replay, rows: range) -> None:
        for row in rows:
            step = Step({"pixels": frames[row]}, 0.0, row % 20 == 0, row % 20 == 19, False, 1)
            replay.append(0, step, np.zeros(1, np.float32))

    replay = opened(tmp_path / "whole", mapped=True, streams=1)
    assert replay.budget.resident
    play(replay, range(25))
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    replay.close()
    last = max((tmp_path / "torn").glob("stream_*/segment_*.bin"))
    os.truncate(last, last.stat().st_size * 7 // 10)
    replay = opened(tmp_path / "torn", mapped=True, streams=1)
    (first,) = replay.next_rows
    assert first == 20
    frames = rng.integers(0, 256, (60, *SPEC.pixels), np.uint8)
    play(replay, range(20, 60))
    out = np.empty((2, frames[0].size), np.uint8)
    replay._streams[0].frames.copy(20, out)
    assert np.array_equal(out, frames[20:22].reshape(2, -1))
    replay.close()
