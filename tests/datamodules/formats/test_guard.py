"""Nothing outside a data set's folder is read, and no size is believed before it is checked."""

import os
from pathlib import Path

import pytest

from datamodules.formats import guard
from datamodules.formats.guard import Limits, find_files, inside, read_inside, require_array, require_image
from datamodules.formats.protocol import HostileFile


def data_set(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    (root / "a.npz").write_bytes(b"a")
    (root / "sub" / "b.npz").write_bytes(b"b")
    (tmp_path / "secret.npz").write_bytes(b"secret")
    return root


def test_a_scan_keeps_to_the_folder_and_names_what_it_leaves_out(tmp_path, monkeypatch):
    root = data_set(tmp_path)
    (root / "out.npz").symlink_to(tmp_path / "secret.npz")
    (root / "loop.npz").symlink_to("loop.npz")
    (root / "gone.npz").symlink_to("nothing.npz")
    (root / "line\nbreak.npz").write_bytes(b"x")
    (root / "up").symlink_to(tmp_path)
    (root / "dir.npz").mkdir()
    (root / ".tmp.npz").write_bytes(b"unfinished")
    os.mkfifo(root / "fifo.npz")
    (root / "inner.npz").symlink_to("sub/b.npz")
    files, problems = find_files(root, [".npz"])
    assert files == [Path("a.npz"), Path("inner.npz"), Path("sub/b.npz")]
    left_out = {problem.name.strip("'") for problem in problems}
    assert left_out == {"out.npz", "loop.npz", "gone.npz", "line\\nbreak.npz", "up", "fifo.npz"}
    monkeypatch.setattr(guard, "LIMITS", Limits(files=3))
    with pytest.raises(HostileFile, match="expected at most 3"):
        find_files(root, [".npz"])


def test_the_folder_itself_may_be_a_link(tmp_path):
    data_set(tmp_path)
    (tmp_path / "link").symlink_to("set")
    files, problems = find_files(tmp_path / "link", [".npz"])
    assert len(files) == 2 and not problems
    assert read_inside(tmp_path / "link", files[0]) == b"a"


@pytest.mark.parametrize("path", ["../secret.npz", "sub/../../secret.npz", "/etc/passwd", "a\0b", "sub", "missing"])
def test_paths_that_lead_elsewhere_are_refused(tmp_path, path):
    with pytest.raises(HostileFile):
        read_inside(data_set(tmp_path), Path(path))


def test_devices_and_pipes_are_refused_without_waiting(tmp_path):
    root = data_set(tmp_path)
    os.mkfifo(root / "fifo")
    with pytest.raises(HostileFile, match="FIFO"):
        read_inside(root, Path("fifo"))
    with pytest.raises(HostileFile, match="device"):
        read_inside(Path("/dev"), Path("zero"))
    assert inside(root, root / "a.npz") == (root / "a.npz").resolve()


def test_sizes_are_compared_without_overflow():
    assert require_array("x", (3, 4), 8) == 96
    with pytest.raises(HostileFile, match=str(2**66)):
        require_array("x", (2**33, 2**33), 1)
    with pytest.raises(HostileFile, match="negative"):
        require_array("x", (-1, 2), 1)
    require_image("x", 84, 84)
    for size in ((50_000, 1), (8192, 8192)):
        with pytest.raises(HostileFile, match="pixels"):
            require_image("x", *size)


def test_a_file_longer_than_its_limit_is_not_read(tmp_path):
    root = data_set(tmp_path)
    with (root / "long").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(HostileFile, match=str(1 << 40)):
        read_inside(root, Path("long"))
