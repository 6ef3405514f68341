"""Replay serves the rows that were stored, all windows alike, through wrap-around, damage, crashes and roll-backs."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

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
from tests.io_faults import Crash, Faults
from worldmodel.spec import EnvSpec

ROOT = Path(__file__).parents[2]
SPEC = EnvSpec(task="count", images={"pixels": (3, 4, 4)}, action_dim=2, action_repeat=2, episode_steps=20)


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Syncs matter to power losses only, and to the test that counts them."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@dataclass
class Row:
    """What one stored row must look like when it is served."""

    mark: int
    episode: int
    action: float
    is_first: bool
    is_last: bool
    is_terminal: bool


@dataclass
class Counter:
    """A counting environment: every row carries its own number in its pixels, its reward and its action."""

    replay: Replay
    stream: int = 0
    rows: list[Row] = field(default_factory=list)
    episode: int = 0

    def step(self, *, first: bool = False, last: bool = False, terminal: bool = False) -> None:
        mark = len(self.rows)
        self.episode += first
        row = Row(mark, self.episode, 0.0 if first else mark % 97 / 97, first, last, terminal)
        step = Step({"pixels": self.pixels(mark)}, float(mark), first, last, terminal, 0 if first else 2)
        self.replay.append(self.stream, step, np.full(2, row.action, np.float32))
        self.rows.append(row)

    def pixels(self, mark: int) -> np.ndarray:
        head = np.array([mark, self.stream], "<u4").view(np.uint8)
        return np.concatenate([head, np.full(40, mark % 251, np.uint8)]).reshape(3, 4, 4)

    def play(self, length: int, *, last: bool = True) -> None:
        for t in range(length):
            self.step(first=t == 0, last=last and t == length - 1)


def marks(batch) -> tuple[np.ndarray, np.ndarray]:
    """(row numbers [B, T], streams [B]) written in the pixels, every pixel being checked."""
    B, T = batch.pixels.shape[:2]
    flat = batch.pixels.reshape(B, T, -1).numpy()
    head = np.ascontiguousarray(flat[..., :8]).view("<u4")
    assert (flat[..., 8:] == head[..., :1] % 251).all()
    return head[..., 0], head[:, 0, 1]


def check(batch, counters: list[Counter], *, across: bool = False) -> None:
    """Compare a batch with the slow reference, row by row."""
    numbers, streams = marks(batch)
    assert (np.diff(numbers, axis=1) == 1).all()
    for b, (window, stream) in enumerate(zip(numbers, streams, strict=True)):
        rows = [counters[stream].rows[mark] for mark in window]
        assert across or len({row.episode for row in rows}) == 1
        assert batch.reward[b].tolist() == [row.mark for row in rows]
        assert batch.action[b].tolist() == [[np.float32(row.action)] * 2 for row in rows]
        for key in ("is_first", "is_last", "is_terminal"):
            assert getattr(batch, key)[b].tolist() == [getattr(row, key) for row in rows], key


def served(replay: Replay) -> set[int]:
    """Numbers of all rows that can be sampled (one stream)."""
    return set(marks(replay.sample(40 * replay.rows, 1))[0].reshape(-1).tolist()) if replay.rows else set()


def windows(rows: list[Row], length: int, *, first: int = 0) -> set[int]:
    starts = range(first, len(rows) - length + 1)
    return {i for i in starts if rows[i].episode == rows[i + length - 1].episode}


def abandon(replay: Replay) -> None:
    """What the death of the process does: locks and files go, nothing is flushed."""
    for stream in replay._streams:
        if stream.log:
            stream.log.close()
    replay._leave()


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


def small_folder(folder: Path) -> Counter:
    replay = Replay(spec=SPEC, capacity=200, folder=folder, flush_rows=6)
    counter = Counter(replay)
    for length in (20, 15, 30, 11, 25):
        counter.play(length)
    replay.close()
    return counter


def damages(content: bytes, rng: np.random.Generator) -> list[bytes]:
    flips = []
    for position in rng.choice(len(content), 12, replace=False):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        flips.append(bytes(flipped))
    return flips + [content[: int(size)] for size in rng.integers(0, len(content), 4)]


def test_damage_is_found_and_never_served(tmp_path):
    counter, rng = small_folder(tmp_path / "good"), np.random.default_rng(0)
    cases = 0
    for path in sorted((tmp_path / "good/stream_00").iterdir()):
        for content in damages(path.read_bytes(), rng):
            shutil.copytree(tmp_path / "good", tmp_path / "bad")
            (tmp_path / "bad/stream_00" / path.name).write_bytes(content)
            replay = Replay(spec=SPEC, capacity=200, folder=tmp_path / "bad", damage_limit=1.0)
            assert replay.damaged_blocks > 0
            assert (replay.rows < len(counter.rows)) == (path.suffix == ".bin")
            check(replay.sample(60, 4), [counter])
            replay.close()
            shutil.rmtree(tmp_path / "bad")
            cases += 1
    assert cases >= 60


def test_flipped_bits_in_the_middle_are_counted(tmp_path):
    small_folder(tmp_path)
    rng = np.random.default_rng(1)
    path = sorted((tmp_path / "stream_00").iterdir())[1]
    content = path.read_bytes()
    for position in rng.choice(len(content), 60, replace=False):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        replay = Replay(spec=SPEC, capacity=200, folder=tmp_path, damage_limit=0.1)
        assert replay.damaged_blocks == 1
        abandon(replay)


CALLS = ("open", "write", "fsync", "ftruncate", "replace", "unlink", "rename")


def script(replay: Replay, counter: Counter, *, attempt) -> None:
    """A short life of a replay; `attempt` makes each call."""
    for length in (7, 12):
        for t in range(length):
            attempt(lambda t=t, n=length: counter.step(first=t == 0, last=t == n - 1))
    for t in range(6):
        attempt(lambda t=t: counter.step(first=t == 0))
    attempt(lambda: replay.truncate(0))
    state = attempt(replay.state_dict)
    for t in range(5):
        attempt(lambda t=t: counter.step(first=t == 0))
    attempt(replay.discard_open)
    for t in range(9):
        attempt(lambda t=t: counter.step(first=t == 0, last=t == 8))
    assert state
    attempt(replay.flush)


EXPECTED = {*range(7 + 12 + 6), *range(7 + 12 + 6 + 5, 7 + 12 + 6 + 5 + 9)}


def test_any_failed_call_can_be_made_again(tmp_path, monkeypatch):
    def again(call):
        try:
            return call()
        except OSError:
            return call()

    for n in range(1, 1000):
        folder = tmp_path / str(n)
        replay = Replay(spec=SPEC, capacity=100, folder=folder, flush_rows=4)
        counter = Counter(replay)
        with monkeypatch.context() as patch:
            faults = Faults(patch, "error", n, calls=CALLS)
            script(replay, counter, attempt=again)
        counter.rows[24].is_last = True
        if not faults.hit:
            break
        assert served(replay) == EXPECTED, n
        check(replay.sample(50, 3), [counter])
        abandon(replay)
        reopened = Replay(spec=SPEC, capacity=100, folder=folder)
        assert served(reopened) == EXPECTED and reopened.damaged_blocks == 0, n
        assert (reopened.env_steps, reopened.episodes) == (replay.env_steps, replay.episodes)
        check(reopened.sample(50, 3), [counter])
        abandon(reopened)
    assert 20 < n < 999


def test_crash_at_any_call_leaves_a_prefix(tmp_path, monkeypatch):
    for n in range(1, 1000):
        folder = tmp_path / str(n)
        replay = Replay(spec=SPEC, capacity=100, folder=folder, flush_rows=4)
        counter, durable = Counter(replay), []

        def once(call, replay=replay, counter=counter, durable=durable):
            result = call()
            durable[:] = [replay._streams[0].log.synced_rows]
            return result

        with monkeypatch.context() as patch:
            faults = Faults(patch, "crash", n, calls=CALLS)
            try:
                script(replay, counter, attempt=once)
            except Crash:
                # the row whose append died may have reached the disk
                counter.rows.append(Row(len(counter.rows), counter.episode, 0.0, False, False, False))
        abandon(replay)
        if not faults.hit:
            break
        reopened = Replay(spec=SPEC, capacity=100, folder=folder, flush_rows=4)
        got = served(reopened)
        dropped = set(range(25, 30))
        assert reopened.damaged_blocks == 0, n
        assert got - dropped >= {m for m in range((durable or [0])[0]) if m not in dropped}, n
        assert got - dropped == {m for m in range(max(got, default=-1) + 1) if m not in dropped}, n
        if reopened.is_open(0):
            reopened.truncate(0)
        Counter(reopened, rows=list(counter.rows), episode=50).play(8)
        abandon(reopened)
    assert 20 < n < 999


@pytest.mark.parametrize("end", ["episode", "truncate", "discard", "flush", "state", "close"])
def test_everything_is_synced_at(tmp_path, monkeypatch, end):
    replay = Replay(spec=SPEC, capacity=64, folder=tmp_path, flush_rows=4)
    synced = {}

    def record(fd: int) -> None:
        synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size

    counter = Counter(replay)
    monkeypatch.setattr(os, "fsync", record)
    counter.play(30)
    counter.play(6, last=end == "episode")
    calls = {"truncate": lambda: replay.truncate(0), "discard": replay.discard_open, "flush": replay.flush}
    calls |= {"state": replay.state_dict, "close": replay.close, "episode": lambda: None}
    calls[end]()
    files = [path.stat() for path in (tmp_path / "stream_00").iterdir()]
    assert len(files) > 1
    assert {stat.st_ino: stat.st_size for stat in files}.items() <= synced.items()
    assert (tmp_path / "stream_00").stat().st_ino in synced


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from worldmodel.spec import EnvSpec

spec = EnvSpec("count", {"pixels": (3, 4, 4)}, 2, 2, 20)
os.fsync = lambda fd: None  # a killed process leaves its pages behind
for trial in range(10):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        replay = Replay(spec=spec, capacity=1000, folder=Path(sys.argv[1]), flush_rows=3)
        replay.truncate(0)
        os.write(write, b"x")
        for n in range(10**9):
            t = n % 10
            step = Step({"pixels": np.full((3, 4, 4), n % 251, np.uint8)}, float(n % 251), t == 0, t == 9, False, 2)
            replay.append(0, step, np.zeros(2, np.float32))
    os.read(read, 1)
    import time
    time.sleep(0.01 + 0.013 * trial)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    replay = Replay(spec=spec, capacity=1000, folder=Path(sys.argv[1]))
    assert replay.damaged_blocks == 0 and replay.rows > 0
    batch = replay.sample(500, 2)
    assert (batch.pixels.reshape(500, 2, -1).float().mean(-1) == batch.reward).all()
    replay.close()
print("survived")
"""


def test_survives_being_killed(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.stdout == "survived\n", done.stderr


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
