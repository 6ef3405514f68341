"""An import brings every readable episode once, in order, however often it is cut short."""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer
from datamodules.importer import import_trajectories
from tests.datamodules.formats.episodes import SPEC, assert_holds, assert_same, episode


def source(folder: Path, *, seed: int = 0, count: int = 12) -> list:
    """An npz folder with episodes of 1 to 12 rows; returns those of 2 rows or more."""
    made = [episode(1 + k, seed + k, terminal=k % 2 == 0) for k in range(count)]
    writer = open_writer(f"npz:{folder}", SPEC)
    for trajectory in made:
        writer.write(trajectory)
    return made[1:]


def run(start: Path, end: Path):
    return import_trajectories(open_reader(f"npz:{start}"), end)


def test_counts_say_what_happened_to_every_episode(tmp_path):
    expected = source(tmp_path / "in")
    (tmp_path / "in" / "zz.npz").write_text("no archive")
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.episodes, report.short, report.resumed) == (11, 1, 0)
    assert report.rows == sum(len(one) for one in expected) and [p.name for p in report.problems] == ["zz.npz"]
    assert report.megabytes == pytest.approx(report.rows * 768 / 1e6)
    assert_holds(open_reader(f"segments:{tmp_path}/out"), expected)


def test_a_second_run_adds_nothing_but_what_is_new(tmp_path):
    expected = source(tmp_path / "in")
    first = run(tmp_path / "in", tmp_path / "out")
    again = run(tmp_path / "in", tmp_path / "out")
    assert (again.episodes, again.rows, again.resumed) == (first.episodes, first.rows, 11)
    more = episode(5, 99)
    open_writer(f"npz:{tmp_path}/in", SPEC).write(more)
    assert run(tmp_path / "in", tmp_path / "out").resumed == 11
    assert_holds(open_reader(f"segments:{tmp_path}/out"), [*expected, more])


KILLED = """
import os, signal, sys
from pathlib import Path
from datamodules import importer
from datamodules.formats.uri import open_reader
from datamodules.storage.segment_writer import SegmentWriter

class Killed(SegmentWriter):
    def write(self, trajectory):
        super().write(trajectory)
        if self.episodes == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

importer.open_writer = Killed
importer.import_trajectories(open_reader("npz:" + sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_imports_are_completed_without_duplicates(tmp_path):
    expected = source(tmp_path / "in")
    for stop in (3, 11):
        arguments = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "out"), str(stop)]
        root = Path(__file__).parents[2]
        assert subprocess.run(arguments, cwd=root, timeout=60, check=False).returncode == -signal.SIGKILL
    assert run(tmp_path / "in", tmp_path / "out").resumed == 11
    assert_holds(open_reader(f"segments:{tmp_path}/out"), expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_half_written_episode_is_written_again(tmp_path, share):
    expected = source(tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out")
    path = next((tmp_path / "out").glob("stream_00/*.bin"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert run(tmp_path / "in", tmp_path / "out").resumed < 11
    # what was durable before the cut is reported as damage, and is there again
    with closing(open_reader(f"segments:{tmp_path}/out")) as reader:
        for got, wanted in zip(reader.trajectories(), expected, strict=True):
            assert_same(got, wanted)
        assert reader.problems


def test_other_data_sets_are_not_mixed(tmp_path):
    source(tmp_path / "in")
    source(tmp_path / "other", seed=50)
    run(tmp_path / "in", tmp_path / "out")
    with pytest.raises(FormatError, match="choose another folder"):
        run(tmp_path / "other", tmp_path / "out")
    writer = open_writer(f"segments:{tmp_path}/recorded", SPEC)
    writer.write(episode(5))
    writer.close()
    with pytest.raises(FormatError, match="something else"):
        run(tmp_path / "in", tmp_path / "recorded")
    files = sorted((tmp_path / "in").glob("*.npz"))
    files[5].unlink()
    with pytest.raises(FormatError, match="at most the 10 episodes"):
        run(tmp_path / "in", tmp_path / "out")
    open_writer(f"npz:{tmp_path}/in", SPEC).write(episode(30, 1))
    with pytest.raises(FormatError, match="has changed"):
        run(tmp_path / "in", tmp_path / "out")


def test_no_episode_is_an_empty_import(tmp_path):
    source(tmp_path / "in", count=1)
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.episodes, report.rows, report.short) == (0, 0, 1)
