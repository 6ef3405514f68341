"""Damage is never served; a call that fails can be made again, a crash at any call leaves a prefix."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from datamodules.replay import Replay
from tests.datamodules.counting_rows import SPEC, Counter, Row, abandon, check, served
from tests.io_faults import Crash, Faults

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Syncs matter to power losses only, and to the test that counts them."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


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
