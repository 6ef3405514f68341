"""Addresses say which format lies where, and every mistake in them is named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.formats import uri
from datamodules.formats.protocol import FormatError, Reader
from datamodules.formats.uri import Uri, parse, recognise
from tests.datamodules.formats.episodes import SPEC


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("npz:data/walker", Uri("npz", Path("data/walker"))),
        ("hdf5:/a/b.hdf5?image_key=front&low=-2", Uri("hdf5", Path("/a/b.hdf5"), {"image_key": "front", "low": "-2"})),
        ("npz:a?b?task=x%26y", Uri("npz", Path("a?b"), {"task": "x&y"})),
        ("mp4:a:b", Uri("mp4", Path("a:b"))),
    ],
)
def test_parts(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("npy:data", "did you mean npz"),
        ("https://host/data", "segments, npz, hdf5"),
        ("npz:", "scheme:path"),
        ("npz:a\nb", "control characters"),
        ("npz:a?task", "got 'task'"),
        ("npz:a?task=1&task=2", "different keys"),
        ("no/such/folder", "no such file"),
    ],
)
def test_mistakes_are_named(text, named):
    with pytest.raises(FormatError, match=named):
        parse(text)


def test_content_tells_the_format(tmp_path):
    marks = {
        "segments": "replay.json",
        "lerobot": "meta/info.json",
        "minari": "data/main_data.hdf5",
        "npz": "walker/1.npz",
        "hdf5": "shard.hdf5",
        "mp4": "film.mp4",
    }
    for scheme, name in marks.items():
        path = tmp_path / scheme / name
        path.parent.mkdir(parents=True)
        path.touch()
        assert recognise(tmp_path / scheme) == scheme
    np.savez(tmp_path / "episode", reward=np.zeros(3))
    assert parse(str(tmp_path / "episode.npz")).scheme == "npz"
    (tmp_path / "renamed").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    assert recognise(tmp_path / "renamed") == "hdf5"
    (tmp_path / "empty").mkdir()
    for name in ("empty", "episode.txt"):
        (tmp_path / "episode.txt").write_text("text")
        with pytest.raises(FormatError, match="say which"):
            recognise(tmp_path / name)


class Opened(Reader):
    """What was opened, and with which options."""


class Module:
    """A format with every type of option."""

    @staticmethod
    def open_reader(path, *, rows=10, scale=1.0, flag=False, task=None):
        opened = Opened()
        opened.options = (path, rows, scale, flag, task)
        return opened


def test_options_take_the_types_of_the_defaults(monkeypatch):
    monkeypatch.setitem(sys.modules, "datamodules.formats.npz", Module)
    opened = uri.open_reader("npz:.?rows=3&scale=1e-2&flag=true&task=12")
    assert opened.options == (Path("."), 3, 0.01, True, "12")
    for text, named in (("row=3", "rows"), ("rows=x", "expected int"), ("flag=yes", "expected bool")):
        with pytest.raises(FormatError, match=named):
            uri.open_reader(f"npz:.?{text}")
    with pytest.raises(FormatError, match="has open_writer"):
        uri.open_writer("npz:a", SPEC)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    class NeedsPackage:
        @staticmethod
        def open_reader(path):
            import no_such_package  # noqa: F401

    monkeypatch.setitem(sys.modules, "datamodules.formats.hdf5", NeedsPackage)
    with pytest.raises(FormatError, match=r"no_such_package.*worldmodel\[hdf5\]"):
        uri.open_reader("hdf5:.")


@pytest.mark.parametrize("address", ["no/such", *(f"{scheme}:no/such" for scheme in uri.SCHEMES)])
def test_a_path_that_is_not_there_is_said_in_one_line(address):
    with pytest.raises(FormatError, match=r"^no such file or folder: no/such$") as caught:
        uri.open_reader(address)
    assert caught.type is FormatError


def test_an_output_needs_a_scheme_or_a_suffix():
    assert uri.parse_output("no/such.npz") == Uri("npz", Path("no/such.npz"))
    with pytest.raises(FormatError, match="say a scheme, such as npz:no/such"):
        uri.parse_output("no/such")


def test_home_is_found_and_addresses_become_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert parse("npz:~/a?low=-2") == Uri("npz", tmp_path / "a", {"low": "-2"})
    assert uri.parse_output("~/a.npz").path == tmp_path / "a.npz"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(FormatError, match="nothing is yet"):
        uri.require_new("npz:~/full")
    for text, expected in (
        ("npz:data/a?low=-2", f"npz:{tmp_path}/data/a?low=-2"),
        ("~/a b", f"{tmp_path}/a b"),
        ("npz:/x?a=~", "npz:/x?a=~"),
        ("https://host/a", "https://host/a"),
    ):
        assert uri.absolute(text) == expected
