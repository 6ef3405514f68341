"""Folders of films with a table each: `<episode>.mp4` and `<episode>.csv`, and `worldmodel.json` for the spec.

A table has one line for each frame, by arrival: action_0, action_1, ... that led to it (zeros in the first line), and
where recorded reward, terminal (1 in the last line: the episode ended by termination; every name in fields.FIELDS is
read) and env_steps.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.assemble import Assembler
from datamodules.formats.convention import BY_ARRIVAL, RowOptions
from datamodules.formats.episode_reader import EpisodeReader
from datamodules.formats.episode_writer import EpisodeWriter, require_actions
from datamodules.formats.fields import FLAGS, find_fields, split
from datamodules.formats.guard import find_files, open_inside, read_inside, require_array
from datamodules.formats.images import Film, encode_film, require_codec, require_fps, stack
from datamodules.formats.observed import store_spec, stored_spec
from datamodules.formats.protocol import FormatError, reading
from datamodules.storage.durable import write_atomic
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

CSV_BYTES = 1 << 24  # parsed, a table takes four times its bytes


class Mp4Reader(EpisodeReader):
    """Reads the folder at `path`.

    Args:
        path: of the folder.
        options: how rows are stored, by arrival where nothing else is said.
        size: side to which frames are resized by area; 0: as recorded.

    Raises:
        FormatError: where nothing can be read. OSError.
    """

    def __init__(self, path: Path, *, options: RowOptions = BY_ARRIVAL, size: int = 0) -> None:
        if not path.is_dir():
            raise FormatError(f"{path}: expected a folder of mp4 and csv files, got none")
        stored = stored_spec(path)
        self._root, self._size, self._terminal_key = path, size, options.terminal_key
        assembler = Assembler(options.convention(stored))
        self._films, left_out = find_files(path, (".mp4",))
        super().__init__(left_out, assembler)
        self._count = len(self._films)
        self._image = next(iter(stored.images), "pixels") if stored else "pixels"
        # frames of an unknown size are read as they are
        self._shape: tuple[int, int, int] | None = None
        spec = self._known_spec(
            stored,
            expected=f"{path}: expected a readable mp4 with csv",
            task=options.task,
            name=path.resolve().name,
        )
        self.spec = replace(spec, images={self._image: (spec.pixels[0], size, size)}) if size else spec
        self._shape = self.spec.pixels

    def _episodes(self) -> Iterator[tuple[str, Callable[[], Trajectory]]]:
        return ((str(path.with_suffix("")), partial(self._read, path)) for path in self._films)

    def _read(self, path: Path) -> Trajectory:
        name, table = str(path.with_suffix("")), self._table(path)
        rows = len(table["action"])
        film = Film(os.fdopen(open_inside(self._root, path), "rb"), str(path))
        try:
            shape = self._shape or (3, film.height, film.width)
            require_array(str(path), (rows, *shape), 1)
            frames = film.sequence()
            pixels = stack(frames, rows, shape, name=str(path), resize=self._size > 0)
            if next(frames, None) is not None:
                raise FormatError(f"{path}: expected {rows} frames, one for each line of the table, got more")
        finally:
            film.close()
        keys = find_fields(table, terminal_key=self._terminal_key)
        fields: dict[str, Any] = {field: table[key] for field, key in keys.items()}
        flags = {key: fields.pop(key) for key in FLAGS if key in fields}
        (episode, *others), terminal = split(name, flags, rows)
        fields |= {"observation": {self._image: pixels}, "is_terminal": terminal}
        trajectory = self._assembler.trajectory(name, fields, unread=set(table) - set(keys.values()))
        if others:
            raise FormatError(f"{name}: expected one episode in a film, got another from row {others[0].rows.start} on")
        self._assembler.note_piece(episode, keys, terminal)
        return trajectory

    def _table(self, path: Path) -> dict[str, NDArray[Any]]:
        relative = path.with_suffix(".csv")
        text = read_inside(self._root, relative, limit=CSV_BYTES).decode(errors="replace")
        return parse_table(text, str(relative))


def parse_table(text: str, name: str) -> dict[str, NDArray[Any]]:
    """The columns of a table by name, action [T, A] and the others [T]; raises FormatError."""
    header, _, body = text.partition("\n")
    names = [column.strip() for column in header.split(",")]
    actions = [column for column in names if column.startswith("action_")]
    if len(set(names)) < len(names) or not actions or actions != [f"action_{a}" for a in range(len(actions))]:
        raise FormatError(f"{name}: expected different columns with action_0, action_1, ..., got {header:.80}")
    if not body.strip():
        raise FormatError(f"{name}: expected a line for each frame, got none")
    with reading(f"{name}: expected numbers, got", (ValueError,)):
        values = np.loadtxt(io.StringIO(body), delimiter=",", comments=None, ndmin=2, dtype=np.float64)
    if values.shape[1] != len(names):
        raise FormatError(f"{name}: expected {len(names)} columns, got {values.shape[1]}")
    columns = dict(zip(names, values.T, strict=True))
    return {"action": np.stack([columns.pop(column) for column in actions], 1), **columns}


class Mp4Writer(EpisodeWriter):
    """Writes the folder `path`, or adds to one of the same spec; see Writer.

    The table comes last: an episode without one is unfinished. codec: lossless or h264. Raises FormatError, OSError.
    """

    def __init__(self, path: Path, spec: EnvSpec, *, codec: str = "lossless", fps: float = 30.0) -> None:
        super().__init__(spec)
        require_codec(codec)
        require_fps(fps)
        if len(spec.images) != 1 or spec.vectors:
            remedy = "npz, hdf5, minari and segments hold more"
            raise FormatError(f"{path}: expected one image and nothing else, got {spec.observed}: {remedy}")
        if spec.pixels[0] not in (1, 3):
            raise FormatError(f"{path}: expected frames of 1 or 3 channels, got {spec.pixels[0]}")
        require_actions(path, spec)
        store_spec(path, spec)
        self._root, self._codec, self._fps = path, codec, fps
        # a film without a table keeps its number
        numbers = [re.fullmatch(r"episode_(\d{1,9})", film.stem) for film in path.glob("*.mp4")]
        self._episodes = max([int(number[1]) + 1 for number in numbers if number], default=0)

    def _write(self, trajectory: Trajectory) -> None:
        stem = self._root / f"episode_{self._episodes:06d}"
        encode_film(stem.with_suffix(".mp4"), trajectory.pixels, fps=self._fps, codec=self._codec)
        write_atomic(stem.with_suffix(".csv"), _table_of(trajectory).encode())
        self._episodes += 1


def _table_of(trajectory: Trajectory) -> str:
    dims, last = trajectory.action.shape[1], len(trajectory) - 1
    lines = [",".join([*(f"action_{a}" for a in range(dims)), "reward", "terminal", "env_steps"])]
    for t in range(len(trajectory)):
        # the shortest decimal of a float32 read as float64 gives the same float32 again
        numbers = [repr(float(value)) for value in (*trajectory.action[t], trajectory.reward[t])]
        lines.append(",".join([*numbers, str(int(trajectory.terminal and t == last)), str(trajectory.env_steps[t])]))
    return "\n".join(lines) + "\n"


open_reader, open_writer = Mp4Reader, Mp4Writer
