# ruff: noqa: N999 -- named as it is called: benchmarks are found by name, never by an import statement
"""Import of V-D4RL-shaped npz episodes (501 frames of 64x64x3) into segments, and what bounds it."""

import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.formats.uri import open_reader, open_writer
from datamodules.importer import import_trajectories
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

ROWS, DISTINCT = 501, 10
SPEC = EnvSpec("synthetic", {"pixels": (3, 64, 64)}, 6, 2, 1000)


def measure(*, episodes: int = 1000, folder: str = "") -> dict[str, Any]:
    """Import `episodes` files of np.savez_compressed, then of np.savez; megabytes are of unpacked pixels.

    The files are hard links to ten distinct ones, read from the page cache. folder: where there is room for
    the segments (default: the system's place for temporary files). inflate, write: the same bytes on one core through
    zlib alone, and through write and fsync alone.
    """
    with tempfile.TemporaryDirectory(prefix="import_", dir=folder or None) as name:
        root = Path(name)
        packed = _make(root / "packed", episodes, compress=True)
        stored = _make(root / "stored", episodes, compress=False)
        results = _import(root / "packed", root / "out")
        plain = _import(root / "stored", root / "out")
        limits = {"inflate_mb_per_s": _inflate(packed), "write_mb_per_s": _write(root / "raw", stored)}
        ratio = stored.stat().st_size / packed.stat().st_size
    return results | {f"stored_{key}": plain[key] for key in ("seconds", "mb_per_s")} | limits | {"packed_ratio": ratio}


def _make(folder: Path, episodes: int, *, compress: bool) -> Path:
    """A folder of that many names, and the path of one of the files."""
    writer = open_writer(f"npz:{folder}?compress={compress}", SPEC)
    for seed in range(min(DISTINCT, episodes)):
        writer.write(_episode(seed))
    files = sorted(folder.glob("*.npz"))
    for k in range(len(files), episodes):
        os.link(files[k % len(files)], folder / f"30000101T000000F{k:06d}-{k:032x}-{ROWS}.npz")
    return files[0]


def _episode(seed: int) -> Trajectory:
    """Moving shapes before a textured background, with a little noise: packs about 5:1."""
    rng = np.random.default_rng(seed)
    background = rng.integers(60, 90, (3, 64, 64), np.uint8)
    pixels = np.repeat(background[None], ROWS, 0)
    for _ in range(4):
        size, colour = int(rng.integers(4, 14)), rng.integers(0, 256, (3, 1, 1), np.uint8)
        way = np.clip(np.cumsum(rng.integers(-2, 3, (ROWS, 2)), 0) + 25, 0, 50)
        for frame, (x, y) in zip(pixels, way.tolist(), strict=True):
            frame[:, y : y + size, x : x + size] = colour + frame[:, y : y + size, x : x + size] // 4
    pixels += rng.random(pixels.shape) < 0.03
    action = rng.uniform(-1, 1, (ROWS, SPEC.action_dim)).astype(np.float32)
    action[0] = 0
    reward = np.r_[0, rng.random(ROWS - 1)].astype(np.float32)
    steps = np.full(ROWS, 2, np.int32)
    steps[0] = 0
    return Trajectory({"pixels": pixels}, action, reward, False, steps)


def _import(start: Path, end: Path) -> dict[str, Any]:
    report = import_trajectories(open_reader(f"npz:{start}"), end)
    for path in sorted(end.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert not report.problems, report.problems
    rate = report.megabytes / report.seconds
    return {"episodes": report.episodes, "rows": report.rows, "seconds": report.seconds, "mb_per_s": rate}


def _inflate(path: Path) -> float:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("image.npy")
        content = path.read_bytes()
    start = info.header_offset + 30 + sum(np.frombuffer(content, "<u2", 2, info.header_offset + 26).tolist())
    packed = content[start : start + info.compress_size]
    return _rate(lambda: len(zlib.decompress(packed, -15, info.file_size)))


def _write(path: Path, source: Path) -> float:
    content = source.read_bytes()

    def write() -> int:
        with path.open("wb") as file:
            for _ in range(10):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return 10 * len(content)

    return _rate(write)


def _rate(call: Callable[[], int], repeats: int = 5) -> float:
    """Megabytes per second of the median of some calls that return bytes."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        size = call()
        seconds.append(time.perf_counter() - begin)
    return float(size / 1e6 / np.median(seconds))
