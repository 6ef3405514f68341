"""A writer that is stopped at any of its file operations leaves the episodes that it had finished, exactly."""

import pytest

from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, assert_same, episode
from tests.io_faults import Crash, Faults


@pytest.mark.parametrize(
    ("uri", "kind"), [("mp4:{}", "error"), ("mp4:{}", "crash"), ("lerobot:{}?codec=lossless", "crash")]
)
def test_finished_episodes_survive(tmp_path, monkeypatch, uri, kind):
    expected = [episode(2, seed) for seed in range(2)]
    for n in range(1, 200, 2):
        folder, done = tmp_path / str(n), 0
        writer = open_writer(uri.format(folder), SPEC)
        with monkeypatch.context() as patch:
            faults = Faults(patch, kind, n, calls=("open", "write", "fsync", "replace", "rename"))
            try:
                for trajectory in expected:
                    writer.write(trajectory)
                    done += 1
            except (OSError, Crash):
                pass
        got = list(open_reader(uri.format(folder).partition("?")[0]).trajectories()) if done else []
        # an episode counts as soon as its last file is there, even where the call that put it there then fails
        assert done <= len(got) <= done + 1 or not done
        for one, two in zip(got, expected, strict=False):
            assert_same(one, two)
        if not faults.hit:
            break
    assert done == 2 and n > 10
