"""This project's own segments under the address that all formats share."""

from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.formats.protocol import FormatError, HostileFile
from datamodules.formats.uri import open_reader, open_writer, recognise
from tests.datamodules.formats.episodes import SPEC, assert_holds, some_episodes


def fill(folder: Path) -> None:
    writer = open_writer(f"segments:{folder}", SPEC)
    for trajectory in some_episodes():
        writer.write(trajectory)
    writer.close()


def copied(start: str, end: str) -> None:
    reader = open_reader(start)
    writer = open_writer(end, reader.spec)
    for trajectory in reader.trajectories():
        writer.write(trajectory)
    writer.close()
    reader.close()


def test_round_trip_is_exact(tmp_path):
    fill(tmp_path)
    assert recognise(tmp_path) == "segments"
    assert_holds(open_reader(f"segments:{tmp_path}"), some_episodes())


@pytest.mark.parametrize("other", ["npz:{}/other", "npz:{}/other?compress=false", "hdf5:{}/other.hdf5"])
def test_there_and_back_is_exact_through_lossless_formats(tmp_path, other):
    fill(tmp_path / "own")
    copied(f"segments:{tmp_path}/own", other.format(tmp_path))
    copied(other.format(tmp_path).partition("?")[0], f"segments:{tmp_path}/back")
    assert_holds(open_reader(f"segments:{tmp_path}/back"), some_episodes())


def test_what_is_not_ours_is_refused(tmp_path):
    fill(tmp_path / "own")
    with pytest.raises(FormatError, match="action_dim"):
        open_writer(f"segments:{tmp_path}/own", replace(SPEC, action_dim=3))
    with pytest.raises(FormatError):
        open_reader(f"segments:{tmp_path}")
    (tmp_path / "own" / "stream_00" / "segment_000000000009.bin").symlink_to("/etc/passwd")
    with pytest.raises(HostileFile, match="inside"):
        open_reader(f"segments:{tmp_path}/own")


def test_damage_is_a_problem_and_the_rest_is_read(tmp_path):
    fill(tmp_path)
    path = next(tmp_path.glob("stream_00/*.bin"))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    reader = open_reader(f"segments:{tmp_path}")
    assert len(list(reader.trajectories())) == len(some_episodes()) - 1
    assert "1 damaged" in reader.problems[0].reason
