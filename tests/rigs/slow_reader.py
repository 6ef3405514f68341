"""A slow reader of segment files that shares no code with the replay: what a sampled batch is compared with."""

import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldmodel.spec import EnvSpec

ROWS, CLOSE, DROP = 0, 1, 2


class Row:
    """One row as it lies on disk; `run` numbers the runs of rows that a window may lie in."""

    def __init__(self, data: bytes, spec: EnvSpec, run: int) -> None:
        pixels, actions = math.prod(spec.pixels), 4 * spec.action_dim
        self.pixels = np.frombuffer(data, np.uint8, pixels).reshape(spec.pixels)
        self.action = np.frombuffer(data, "<f4", spec.action_dim, pixels)
        self.reward = float(np.frombuffer(data, "<f4", 1, pixels + actions)[0])
        self.is_first, self.is_last, self.is_terminal = (bool(b) for b in data[pixels + actions + 4 :][:3])
        self.run = run


def read_stream(folder: Path, spec: EnvSpec) -> dict[int, Row]:
    """Every row that a stream's files hold and did not drop, by its number; asserts that all bytes are intact."""
    rows: dict[int, Row] = {}
    run, is_open = 0, False
    for path in sorted(folder.glob("segment_*.bin")):
        data = path.read_bytes()
        while data:
            kind, first, count, payload, data = _next_block(data)
            if kind == CLOSE:
                if first - 1 in rows:  # else its segment was deleted as the ring turned
                    rows[first - 1].is_last = True
                is_open = False
            elif kind == DROP:
                for number in range(first - count, first):
                    rows.pop(number, None)
                is_open = False
            else:
                for i, row in enumerate(_split(payload, count, spec)):
                    run += not is_open
                    rows[first + i] = Row(row, spec, run)
                    is_open = not rows[first + i].is_last
    return rows


def _next_block(data: bytes) -> tuple[int, int, int, bytes, bytes]:
    """Kind, first row, rows and payload of the first block, and the bytes after it."""

    def number(begin: int, size: int) -> int:
        return int.from_bytes(data[begin : begin + size], "little")

    # magic 4, version 2, kind 2, block 8, first row 8, rows 4, payload bytes 4, env steps 8, episodes 8, two CRCs
    assert data[:4] == b"RPLB" and number(4, 2) == 1, data[:6]
    assert number(52, 4) == zlib.crc32(data[:52])
    payload = data[56 : 56 + number(28, 4)]
    assert number(48, 4) == zlib.crc32(payload) and len(payload) == number(28, 4)
    return number(6, 2), number(16, 8), number(24, 4), payload, data[56 + len(payload) :]


def _split(payload: bytes, count: int, spec: EnvSpec) -> list[bytes]:
    """The payload's columns, cut into rows."""
    sizes = [math.prod(spec.pixels), 4 * spec.action_dim, 4, 1, 1, 1, 4]
    assert len(payload) == count * sum(sizes)
    rows, begin = [b""] * count, 0
    for size in sizes:
        for i in range(count):
            rows[i] += payload[begin + i * size : begin + (i + 1) * size]
        begin += count * size
    return rows


class Reference:
    """The rows of all streams side by side; those of numbers that are not stored have run 0."""

    def __init__(self, folder: Path, spec: EnvSpec) -> None:
        streams = [read_stream(path, spec) for path in sorted(folder.glob("stream_*"))]
        newest = 1 + max(number for rows in streams for number in rows)
        shape = (len(streams), newest)
        self.fields: dict[str, NDArray[np.generic]] = {
            "pixels": np.zeros((*shape, *spec.pixels), np.uint8),
            "action": np.zeros((*shape, spec.action_dim), np.float32),
            "reward": np.zeros(shape, np.float32),
            **{flag: np.zeros(shape, np.bool_) for flag in ("is_first", "is_last", "is_terminal")},
        }
        self.run = np.zeros(shape, np.int64)
        for i, rows in enumerate(streams):
            for number, row in rows.items():
                self.run[i, number] = row.run
                for key, values in self.fields.items():
                    values[i, number] = getattr(row, key)
