"""Files leave the page cache and come back, and read the same all the while."""

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from datamodules.storage.frames import FileSnapshot, MappedFrames, MemoryFrames, drop_cached, map_file

SIZE, PAGE = 3 << 20, os.sysconf("SC_PAGE_SIZE")


def is_cached(path: Path) -> bool:
    """Whether all pages of a file are in memory."""
    whole = map_file(path)
    pages = np.zeros(-(-len(whole) // PAGE), np.uint8)
    address = [ctypes.c_void_p(array.ctypes.data) for array in (whole, pages)]
    assert ctypes.CDLL(None).mincore(address[0], ctypes.c_size_t(len(whole)), address[1]) == 0
    return bool((pages & 1).all())


@pytest.fixture
def noise(tmp_path):
    """A file on disk of which nothing is cached, and its bytes."""
    content = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    path = tmp_path / "noise"
    with path.open("wb") as file:
        file.write(content.tobytes())
        file.flush()
        os.fsync(file.fileno())
    assert is_cached(path)
    drop_cached(path)
    if is_cached(path):
        pytest.skip("files here live in memory")
    return path, content


@pytest.mark.parametrize("bring", [map_file, lambda path, resident: FileSnapshot(path, resident=resident).whole])
def test_a_resident_file_is_read_before_it_is_touched(noise, bring):
    path, content = noise
    lazy = bring(path, resident=False)
    assert not is_cached(path)
    whole = bring(path, resident=True)
    assert is_cached(path)
    assert np.array_equal(whole, content) and np.array_equal(lazy, content)


def test_a_ring_in_memory_does_not_keep_the_file_as_well(noise):
    path, content = noise
    assert MemoryFrames(np.empty((4, 8), np.uint8)).read(path) == content.tobytes()
    assert not is_cached(path)


def test_a_file_is_brought_in_when_the_next_begins(noise):
    path, content = noise
    frames = MappedFrames(frame_bytes=SIZE // 4, capacity=1, resident=True)
    frames.located(0, path, 0)
    assert not is_cached(path)
    frames.located(4, path.with_name("next"), 0)
    assert is_cached(path)
    out = np.empty((4, SIZE // 4), np.uint8)
    frames.copy(0, out)
    assert np.array_equal(out.reshape(-1), content)


def test_a_file_that_cannot_be_mapped_waits_until_it_is_read(tmp_path):
    frames = MappedFrames(frame_bytes=4, capacity=1, resident=True)
    frames.located(0, tmp_path / "gone", 0)
    frames.located(1, tmp_path / "next", 0)
    with pytest.raises(FileNotFoundError):
        frames.copy(0, np.empty((1, 4), np.uint8))


def test_an_empty_file_is_no_case_of_its_own(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert len(map_file(path, resident=True)) == 0
