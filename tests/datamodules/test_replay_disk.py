"""Replay meets damage beyond its limit, older folders, errors that pass, and a disk that is full."""

import errno
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.storage import durable
from datamodules.storage.budget import ReplayDamaged
from datamodules.storage.durable import ReplayWriteFailed
from datamodules.storage.folder import FORMAT, HEADER
from datamodules.storage.log_format import decode_json, encode_json, intact_blocks
from datamodules.storage.rows import ReplayMismatch
from tests.datamodules.counting_rows import SPEC, Counter, check, served

ROWS = 400  # in blocks of 10


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited for errors to pass, without the waiting."""
    waited = []
    monkeypatch.setattr(durable.time, "sleep", waited.append)
    return waited


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Twenty episodes in one folder; not to be changed."""
    folder = tmp_path_factory.mktemp("stored") / "replay"
    replay = Replay(spec=SPEC, capacity=ROWS, folder=folder, flush_rows=10)
    counter = Counter(replay)
    for _ in range(20):
        counter.play(20)
    replay.close()
    return folder, counter


def spoil(folder: Path, blocks: int) -> None:
    """Flip a bit in the last bytes of the first `blocks` blocks."""
    recorded = Recorded(folder)
    assert recorded.damaged_blocks == 0
    recorded.close()
    left = blocks
    for path in sorted((folder / "stream_00").glob("segment_*.bin")):
        content = bytearray(path.read_bytes())
        ends = _ends(bytes(content))[:left]
        for end in ends:
            content[end - 1] ^= 1
        path.write_bytes(content)
        left -= len(ends)
    assert left == 0


def _ends(content: bytes) -> list[int]:
    return [found.end for found in intact_blocks(content)]


@pytest.mark.parametrize(("blocks", "refused"), [(2, False), (3, True)])
def test_more_than_a_twentieth_lost_is_not_learned_from(stored, tmp_path, blocks, refused):
    shutil.copytree(stored[0], tmp_path / "replay")
    spoil(tmp_path / "replay", blocks)
    limit = 0.05
    if refused:
        with pytest.raises(ReplayDamaged, match=r"30 of 400 rows .* 3 damaged blocks, expected at most 5%") as caught:
            Recorded(tmp_path / "replay")
        limit = float(str(caught.value).rpartition("data.damage_limit=")[2])
    recorded = Recorded(tmp_path / "replay", damage_limit=limit)
    assert (recorded.damaged_blocks, recorded.lost_rows) == (blocks, 10 * blocks)


@pytest.mark.parametrize(("blocks", "refused"), [(2, False), (3, True)])
def test_more_than_a_twentieth_lost_stops_the_start(stored, tmp_path, blocks, refused):
    shutil.copytree(stored[0], tmp_path / "replay")
    spoil(tmp_path / "replay", blocks)
    if refused:
        with pytest.raises(ReplayDamaged, match=r"30 of 400 rows .* 3 damaged blocks, expected at most 5%") as caught:
            Replay(spec=SPEC, capacity=ROWS, folder=tmp_path / "replay")
        limit = float(str(caught.value).rpartition("data.damage_limit=")[2])
    else:
        limit = 0.05
    # what the message advises is enough, and the folder was not left locked
    replay = Replay(spec=SPEC, capacity=ROWS, folder=tmp_path / "replay", damage_limit=limit)
    assert (replay.damaged_blocks, replay.lost_rows) == (blocks, 10 * blocks)
    assert served(replay) == set(range(10 * blocks, ROWS))
    check(replay.sample(200, 3), [stored[1]])
    replay.close()


def as_format_1(folder: Path) -> None:
    """Neither manifests nor a CRC in the header, as the first version wrote it."""
    header = json.loads((folder / HEADER).read_text())
    del header["crc32"]
    (folder / HEADER).write_text(json.dumps({**header, "format": 1}))
    for path in folder.glob("stream_*/manifest.json"):
        path.unlink()


def test_a_folder_of_format_1_is_read_and_becomes_one_of_this_format(stored, tmp_path):
    folder = tmp_path / "replay"
    shutil.copytree(stored[0], folder)
    as_format_1(folder)
    recorded = Recorded(folder)
    assert (recorded.rows, recorded.damaged_blocks) == (ROWS, 0)
    recorded.close()
    assert not (folder / "stream_00/manifest.json").exists()
    for _ in range(2):
        replay = Replay(spec=SPEC, capacity=ROWS, folder=folder)
        assert (replay.damaged_blocks, served(replay)) == (0, set(range(ROWS)))
        replay.close()
        assert json.loads((folder / HEADER).read_text())["format"] == FORMAT
    (folder / "stream_00/manifest.json").unlink()
    replay = Replay(spec=SPEC, capacity=ROWS, folder=folder)
    assert replay.damaged_blocks == 1  # in this format it has to be there
    replay.close()


def test_the_copy_of_a_header_may_be_of_an_earlier_version(stored, tmp_path):
    """A manifest keeps the header as it was written, when one image was all that a spec knew."""
    folder = tmp_path / "replay"
    shutil.copytree(stored[0], folder)
    for path in folder.glob("stream_*/manifest.json"):
        content = decode_json(path.read_bytes())
        spec = {key: value for key, value in content["header"]["spec"].items() if key not in ("images", "vectors")}
        spec["pixels"] = content["header"]["spec"]["images"]["pixels"]
        path.write_bytes(encode_json({**content, "header": {**content["header"], "spec": spec}}))
    (folder / HEADER).write_text("damaged")
    replay = Replay(spec=SPEC, capacity=ROWS, folder=folder)
    assert (replay.damaged_blocks, served(replay)) == (1, set(range(ROWS)))
    replay.close()


def test_a_folder_of_a_later_format_is_refused(stored, tmp_path):
    folder = tmp_path / "replay"
    shutil.copytree(stored[0], folder)
    as_format_1(folder)
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_bytes(encode_json({**header, "format": FORMAT + 1}))
    for opened in (Recorded, lambda path: Replay(spec=SPEC, capacity=ROWS, folder=path)):
        with pytest.raises(ReplayMismatch, match=f"at most {FORMAT}, got {FORMAT + 1}: a newer version"):
            opened(folder)


class Failing:
    """`os.write` that raises EIO `times` times, writing half of what it was given."""

    def __init__(self, monkeypatch, times: int) -> None:
        self.left, self._write = times, os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data) -> int:
        if self.left == 0:
            return self._write(fd, data)
        self.left -= 1
        self._write(fd, bytes(data)[: len(data) // 2])
        raise OSError(errno.EIO, "injected")


@pytest.mark.parametrize("times", [1, 3, 4])
def test_errors_that_pass_are_waited_for_three_times(tmp_path, monkeypatch, waits, times):
    replay = Replay(spec=SPEC, capacity=100, folder=tmp_path / "replay", flush_rows=4)
    counter = Counter(replay)
    counter.play(6)
    counter.step(first=True)
    with monkeypatch.context() as patch:
        failing = Failing(patch, times)
        if times > durable.RETRIES:
            with pytest.raises(ReplayWriteFailed, match=r"injected.*every row before is kept; call again"):
                replay.flush()
        else:
            replay.flush()
        assert failing.left == 0
    assert len(waits) == min(times, durable.RETRIES) and waits == sorted(waits)
    for t in range(5):
        counter.step(last=t == 4)
    replay.close()
    again = Replay(spec=SPEC, capacity=100, folder=tmp_path / "replay")
    assert (again.damaged_blocks, served(again)) == (0, set(range(12)))
    check(again.sample(50, 3), [counter])
    again.close()


def test_a_lasting_error_is_said_at_once(tmp_path, monkeypatch, waits):
    replay = Replay(spec=SPEC, capacity=100, folder=tmp_path, flush_rows=4)
    Counter(replay).play(3)

    def full(fd: int, data) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ReplayWriteFailed, match=r"No space left on device \(.* GB are free\)") as caught:
        Counter(replay).step(first=True)
        replay.flush()
    assert caught.value.errno == errno.ENOSPC and waits == []


def test_closing_insists_once(tmp_path, monkeypatch, waits):
    replay = Replay(spec=SPEC, capacity=100, folder=tmp_path, flush_rows=4)
    Counter(replay).play(3, last=False)

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(ReplayWriteFailed, match="injected"):
            replay.close()
    assert len(waits) == durable.RETRIES
    replay.close()
    assert Replay(spec=SPEC, capacity=100, folder=tmp_path).rows == 3


LIMITED = 3000  # bytes that a file may have: above a manifest's, below a segment's


def test_a_full_disk_drops_nothing_and_is_gone_on_with(tmp_path):
    """The kernel itself refuses: files of this process may not grow beyond a limit, until they may."""
    pid = os.fork()
    if pid == 0:
        os._exit(_live_through_a_full_disk(tmp_path))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _live_through_a_full_disk(folder: Path) -> int:
    """In a child, since limits are a process's: 0 where everything was kept."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.fsync = lambda fd: None
    replay = Replay(spec=SPEC, capacity=1000, folder=folder, flush_rows=4)
    counter, refusals = Counter(replay), 0
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITED, hard))
    while len(counter.rows) < 600:
        t = len(counter.rows) % 20
        try:
            counter.step(first=t == 0, last=t == 19)
        except ReplayWriteFailed:
            refusals += 1
            counter.episode -= t == 0
            rows = len(counter.rows)
            if served(replay) != set(range(rows)) or refusals > 3:
                return 2
            check(replay.sample(100, 3), [counter])
            if refusals == 3:  # as full as before the third time
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    replay.close()
    again = Replay(spec=SPEC, capacity=1000, folder=folder)
    check(again.sample(500, 5), [counter])
    kept = served(again) == set(range(600)) and again.damaged_blocks == 0
    return 0 if kept and refusals == 3 else 3
