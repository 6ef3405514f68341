"""What holds for every format: episodes are streamed, and reading one needs neither a simulator nor torch."""

import gc
import importlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, episode

ROOT = Path(__file__).resolve().parents[3]
FORMATS = [
    "npz:{}",
    "hdf5:{}",
    "mp4:{}",
    "mp4:{}?codec=h264",
    "lerobot:{}?codec=lossless",
    "lerobot:{}?codec=png",
    "minari:{}",
]


def write(uri: str, episodes: int, rows: int) -> str:
    writer = open_writer(uri, SPEC)
    for seed in range(episodes):
        writer.write(episode(rows, seed))
    writer.close()
    return uri.partition("?")[0]


def peak(uri: str, episodes: int) -> int:
    """Bytes that reading takes at most, in Python's and in Arrow's memory; one episode is kept at a time."""
    arrow = importlib.import_module("pyarrow")
    gc.collect()
    before = arrow.total_allocated_bytes()
    tracemalloc.start()
    reader = open_reader(uri)
    found = extra = 0
    for _ in reader.trajectories():
        found += 1
        extra = max(extra, arrow.total_allocated_bytes() - before)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    assert found == episodes and not reader.problems
    return most + extra


@pytest.mark.parametrize("uri", FORMATS)
def test_memory_does_not_grow_with_the_episodes(tmp_path, uri):
    rows = 50
    few, many = (write(uri.format(tmp_path / str(n)), n, rows) for n in (6, 16))
    if uri.startswith("npz"):
        few, many = f"{few}?threads=1", f"{many}?threads=1"
    peak(few, 6)  # imports, caches
    one = rows * 3 * 16 * 16
    assert peak(many, 16) < peak(few, 6) + 4 * one  # of 10; up to 3 are unpacked ahead, in both


READ = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"dm_control", "mujoco", "gymnasium", "torch", "lerobot", "minari"}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from datamodules.formats.uri import open_reader
for uri in sys.argv[1:]:
    reader = open_reader(uri)
    assert len(list(reader.trajectories())) == 2, (uri, reader.problems)
"""


def test_reading_needs_no_simulator(tmp_path):
    uris = [write(uri.format(tmp_path / str(k)), 2, 3) for k, uri in enumerate(FORMATS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READ, *uris]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("scheme", "package"), [("lerobot", "pyarrow"), ("minari", "h5py")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, scheme, package):
    uri = write(f"{scheme}:{tmp_path}", 1, 3)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.parquet", None)
    for opener in (lambda: list(open_reader(uri).trajectories()), lambda: open_writer(f"{scheme}:{tmp_path}/x", SPEC)):
        with pytest.raises((ModuleNotFoundError, ValueError), match=rf"worldmodel\[{scheme}\]"):
            opener()
