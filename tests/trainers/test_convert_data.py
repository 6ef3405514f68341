"""Episodes from one format to the next and back, and what is refused."""

from itertools import pairwise

import pytest

from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, assert_holds, some_episodes
from trainers import convert_data


@pytest.fixture
def recorded(tmp_path):
    writer = open_writer(f"segments:{tmp_path / 'own'}", SPEC)
    for episode in some_episodes():
        writer.write(episode)
    writer.close()
    return tmp_path / "own"


def test_there_and_back_is_the_same(recorded, tmp_path):
    ways = [str(recorded), f"npz:{tmp_path / 'npz'}", f"hdf5:{tmp_path / 'one.hdf5'}", f"segments:{tmp_path / 'again'}"]
    for uri, out in pairwise(ways):
        found = convert_data.main([uri, f"out={out}"])
        assert (found["episodes"], found["skipped"]) == (len(some_episodes()), 0)
    assert_holds(open_reader(ways[-1]), some_episodes())


def test_what_cannot_be_read_is_named(recorded, tmp_path):
    convert_data.main([str(recorded), f"out=npz:{tmp_path / 'npz'}"])
    first = min((tmp_path / "npz").glob("*.npz"))
    first.write_bytes(first.read_bytes()[:50])
    found = convert_data.main([f"npz:{tmp_path / 'npz'}", f"out=hdf5:{tmp_path / 'a.hdf5'}"])
    assert (found["episodes"], found["skipped"]) == (len(some_episodes()) - 1, 1)
    assert found["problems"][0].count(first.name) == 1


@pytest.mark.parametrize("out", ["segments:{}", "npz:{}", "hdf5:{}.hdf5"])
def test_where_nothing_can_be_read_nothing_is_left(recorded, tmp_path, refused, out):
    convert_data.main([str(recorded), f"out=npz:{tmp_path / 'npz'}"])
    for path in (tmp_path / "npz").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    (tmp_path / "new").mkdir()
    told = refused(convert_data.main, f"npz:{tmp_path / 'npz'}", f"out={out.format(tmp_path / 'new' / 'set')}")
    assert "expected an episode that can be read, got none (" in told and "more)" in told
    assert not list((tmp_path / "new").iterdir())


def test_wrong_words(recorded, tmp_path, refused):
    for words, expected in (
        ([], "uri: expected uri=URI, got none"),
        ([str(recorded)], "out: expected out=..., got none"),
        ([str(recorded), f"out=segments:{recorded}"], "out: expected a path where nothing is yet"),
        ([str(recorded), f"out=npz:{tmp_path / 'x'}?codec=png"], "npz: expected an option such as compress"),
        ([str(tmp_path / "none"), "out=npz:x"], "no such file or folder"),
    ):
        assert expected in refused(convert_data.main, *words).splitlines()[-1]
