"""A replay of up to 10^8 rows of 64x64x3 frames that are holes in files: its index, and ms to draw and to read."""

import math
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.samplers.uniform import Uniform
from datamodules.storage.frames import MappedFrames
from datamodules.storage.rows import FRAMES, columns, empty_table, row_bytes
from datamodules.storage.segment_writer import BLOCK_ROWS, SEGMENT_BYTES
from datamodules.storage.stream import Stream, StreamTable
from datamodules.windows import Content
from trainers.benchmarks.replay import EPISODE, SPEC
from trainers.benchmarks.shared.options import numbers
from trainers.benchmarks.shared.timing import median_ms
from trainers.reporting.tables import as_text

COLUMNS = ("rows", "disk_gb", "memory_gb", "index_mb", "index_ms", "draw_ms", "first_read_ms", "read_ms")


class _Holes(Stream):
    """A stream of `count` rows whose blocks lie in files without contents; it can be read from, nothing else."""

    def __init__(self, folder: Path, count: int) -> None:
        self.ring, frame = count, math.prod(SPEC.pixels)
        self.frames = MappedFrames(frame_bytes=frame, capacity=1)
        starts = np.arange(0, count, EPISODE)
        self.runs = np.stack([starts, np.minimum(starts + EPISODE, count)], 1)
        block = BLOCK_ROWS * row_bytes(SPEC)
        per_file = SEGMENT_BYTES // block
        for number, row in enumerate(range(0, count, BLOCK_ROWS)):
            path = folder / f"{number // per_file:08d}"
            if number % per_file == 0:
                with path.open("wb") as file:
                    file.truncate(per_file * block)
            self.frames.located(row, path, number % per_file * block)

    def live(self) -> Any:
        """The episodes."""
        return self.runs


def measure(
    *, rows: str = "100000,1000000,10000000", repeats: int = 40, batch: int = 12, length: int = 24, folder: str = ""
) -> dict[str, Any]:
    """Of each number of rows; windows are read twice: holes are filled with zeros, later they are in the cache."""
    found = []
    for count in numbers("rows", rows):
        with tempfile.TemporaryDirectory(dir=folder or None) as path:
            found.append(_of(Path(path), count, repeats, batch, length))
    print(as_text(found, COLUMNS))
    return {"rows": found, "batch": [batch, length]}


def _of(folder: Path, count: int, repeats: int, batch: int, length: int) -> dict[str, Any]:
    tracemalloc.start()
    stream = _Holes(folder, count)
    sampler = Uniform()
    table: Any = StreamTable(SPEC, empty_table(SPEC, 0), [stream])
    sampler.draw(table.content(0), batch, length)
    index_mb = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    table = StreamTable(SPEC, empty_table(SPEC, count), [stream])
    content: Content = table.content(0)
    seconds = np.zeros((4, repeats))
    for k in range(repeats):
        begin = time.perf_counter()
        content = table.content(k)
        content.index(length)
        indexed = time.perf_counter()
        sampler.draw(content, batch, length)  # builds the index once more
        sampler_ready = time.perf_counter()
        windows = sampler.draw(content, batch, length)
        drawn = time.perf_counter()
        table.gather(windows, length)
        read = time.perf_counter()
        table.gather(windows, length)
        seconds[:, k] = indexed - begin, drawn - sampler_ready, read - drawn, time.perf_counter() - read
    index_ms, draw_ms, first_read_ms, read_ms = map(median_ms, seconds)
    types = [kind_and_shape for key, kind_and_shape in columns(SPEC).items() if key != FRAMES]
    others = sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in types)
    return {
        **{"rows": count, "disk_gb": count * row_bytes(SPEC) / 1e9, "memory_gb": count * others / 1e9},
        **{"index_mb": index_mb, "index_ms": index_ms, "draw_ms": draw_ms},
        **{"first_read_ms": first_read_ms, "read_ms": read_ms},
    }
