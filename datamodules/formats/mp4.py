"""Folders of films with a table each: `<episode>.mp4` and `<episode>.csv`, and `worldmodel.json` for the spec.

A table has one line for each frame, by arrival: action_0, action_1, ... that led to it (zeros in the first line), and
where recorded reward, terminal (1 in the last line: the episode ended by termination; every name in assemble.FIELDS is
read) and env_steps.
"""

import io
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.assemble import BY_ARRIVAL, Assembler, RowOptions, find_fields, split
from datamodules.formats.guard import (
    find_files,
    open_inside,
    read_inside,
    read_json,
    require_array,
    spec_from,
    write_json,
)
from datamodules.formats.images import Film, encode_film, require_codec, require_fps, stack
from datamodules.formats.observed import require_one_image, require_spec, with_task
from datamodules.formats.protocol import FormatError, Problem, in_short
from datamodules.storage.durable import write_atomic
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

META = "worldmodel.json"
CSV_BYTES = 1 << 24  # parsed, a table takes four times its bytes


class Mp4Reader:
    """Reads a folder of films with tables; see Reader, and `open_reader` for the options."""

    def __init__(self, path: Path, options: RowOptions, stored: EnvSpec | None, *, size: int) -> None:
        self._root, self._size, self._terminal_key = path, size, options.terminal_key
        self._assembler = Assembler(options.convention(stored))
        self._films, self._left_out = find_files(path, (".mp4",))
        self.problems, self.notes = list(self._left_out), self._assembler.notes
        guessed = stored or self._guess_spec(path.resolve().name)
        self.spec = with_task(self._resized(guessed), options.task)

    def __len__(self) -> int:
        return len(self._films) + len(self._left_out)

    def _resized(self, spec: EnvSpec) -> EnvSpec:
        side = self._size
        return replace(spec, images={"pixels": (spec.pixels[0], side, side)}) if side else spec

    def _guess_spec(self, task: str) -> EnvSpec:
        """What the first episode that can be read shows."""
        reasons = [problem.reason for problem in self._left_out]
        for path in self._films:
            try:
                rows, film = len(self._table(path)["action"]), self._open(path)
            except (FormatError, OSError) as error:
                reasons.append(str(error))
                continue
            film.close()
            try:
                first = self._read(path, (3, film.height, film.width))
            except (FormatError, TrajectoryInvalid, OSError) as error:
                reasons.append(str(error))
                continue
            return self._assembler.spec(first, task=task, rows=rows)
        raise FormatError(f"{self._root}: expected a readable mp4 with csv, got none: {in_short(reasons)}")

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode in the order of the names."""
        self.problems[:] = self._left_out
        self.notes.clear()
        for path in self._films:
            try:
                trajectory = self._read(path, self.spec.pixels)
                require_spec(self.spec, trajectory)
            except (FormatError, TrajectoryInvalid, OSError) as error:
                self.problems.append(Problem(self._name(path), str(error)))
            else:
                yield trajectory

    def _name(self, path: Path) -> str:
        return str(path.with_suffix(""))

    def _open(self, path: Path) -> Film:
        return Film(os.fdopen(open_inside(self._root, path), "rb"), str(path))

    def _read(self, path: Path, shape: tuple[int, int, int]) -> Trajectory:
        table = self._table(path)
        rows = len(table["action"])
        require_array(str(path), (rows, *shape), 1)
        film = self._open(path)
        try:
            frames = film.sequence()
            pixels = stack(frames, rows, shape, name=str(path), resize=self._size > 0)
            if next(frames, None) is not None:
                raise FormatError(f"{path}: expected {rows} frames, one for each line of the table, got more")
        finally:
            film.close()
        found = find_fields(table, terminal_key=self._terminal_key)
        arrays = {field: table[key] for field, key in found.items()}
        flags = {key: values for key, values in arrays.items() if key not in ("action", "reward", "env_steps")}
        _, terminal = split(self._name(path), flags, rows)
        fields: dict[str, Any] = {key: values for key, values in arrays.items() if key not in flags}
        fields |= {"pixels": pixels, "is_terminal": terminal}
        return self._assembler.trajectory(self._name(path), fields, unread=set(table) - set(found.values()))

    def _table(self, path: Path) -> dict[str, NDArray[Any]]:
        relative = path.with_suffix(".csv")
        text = read_inside(self._root, relative, limit=CSV_BYTES).decode(errors="replace")
        return parse_table(text, str(relative))

    def close(self) -> None:
        """Nothing stays open between episodes."""


def parse_table(text: str, name: str) -> dict[str, NDArray[Any]]:
    """The columns of a table by name, action [T, A] and the others [T]; raises FormatError."""
    header, _, body = text.partition("\n")
    names = [column.strip() for column in header.split(",")]
    actions = [column for column in names if column.startswith("action_")]
    if len(set(names)) < len(names) or not actions or actions != [f"action_{a}" for a in range(len(actions))]:
        raise FormatError(f"{name}: expected different columns with action_0, action_1, ..., got {header:.80}")
    if not body.strip():
        raise FormatError(f"{name}: expected a line for each frame, got none")
    try:
        values = np.loadtxt(io.StringIO(body), delimiter=",", comments=None, ndmin=2, dtype=np.float64)
    except ValueError as error:
        raise FormatError(f"{name}: expected numbers, got {error}") from error
    if values.shape[1] != len(names):
        raise FormatError(f"{name}: expected {len(names)} columns, got {values.shape[1]}")
    columns = dict(zip(names, values.T, strict=True))
    return {"action": np.stack([columns.pop(column) for column in actions], 1), **columns}


class Mp4Writer:
    """Writes a folder of films with tables; see Writer. The table comes last: an episode without one is unfinished."""

    def __init__(self, path: Path, spec: EnvSpec, *, codec: str, fps: float) -> None:
        self._root, self._spec, self._codec, self._fps = path, spec, codec, fps
        # a film without a table keeps its number
        numbers = [re.fullmatch(r"episode_(\d{1,9})", film.stem) for film in path.glob("*.mp4")]
        self._episodes = max([int(number[1]) + 1 for number in numbers if number], default=0)

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode; raises TrajectoryInvalid, OSError."""
        trajectory.check()
        require_spec(self._spec, trajectory)
        stem = self._root / f"episode_{self._episodes:06d}"
        encode_film(stem.with_suffix(".mp4"), trajectory.pixels, fps=self._fps, codec=self._codec)
        write_atomic(stem.with_suffix(".csv"), _table_of(trajectory).encode())
        self._episodes += 1

    def close(self) -> None:
        """Nothing is held back."""


def _table_of(trajectory: Trajectory) -> str:
    dims, last = trajectory.action.shape[1], len(trajectory) - 1
    lines = [",".join([*(f"action_{a}" for a in range(dims)), "reward", "terminal", "env_steps"])]
    for t in range(len(trajectory)):
        # the shortest decimal of a float32 read as float64 gives the same float32 again
        numbers = [repr(float(value)) for value in (*trajectory.action[t], trajectory.reward[t])]
        lines.append(",".join([*numbers, str(int(trajectory.terminal and t == last)), str(trajectory.env_steps[t])]))
    return "\n".join(lines) + "\n"


def open_reader(path: Path, *, options: RowOptions = BY_ARRIVAL, size: int = 0) -> Mp4Reader:
    """Read the folder at `path`.

    Args:
        path: of the folder.
        options: how rows are stored, by arrival where nothing else is said.
        size: side to which frames are resized by area; 0: as recorded.

    Raises:
        FormatError: where nothing can be read. OSError.
    """
    if not path.is_dir():
        raise FormatError(f"{path}: expected a folder of mp4 and csv files, got none")
    return Mp4Reader(path, options, stored_spec(path), size=size)


def open_writer(path: Path, spec: EnvSpec, *, codec: str = "lossless", fps: float = 30.0) -> Mp4Writer:
    """Write the folder `path`, or add to one of the same spec; codec: lossless or h264. Raises FormatError, OSError."""
    require_codec(codec)
    require_fps(fps)
    require_one_image(spec, path, "npz, hdf5, minari and segments hold more")
    if spec.pixels[0] not in (1, 3):
        raise FormatError(f"{path}: expected frames of 1 or 3 channels, got {spec.pixels[0]}")
    path.mkdir(parents=True, exist_ok=True)
    stored = stored_spec(path)
    if stored is not None and not stored.agrees(spec):
        raise FormatError(f"{path}: expected the spec of the episodes there, {stored}, got {spec}")
    if stored is None:
        write_json(path / META, {"spec": spec.to_json()})
    return Mp4Writer(path, spec, codec=codec, fps=fps)


def stored_spec(root: Path) -> EnvSpec | None:
    """The spec that a writer left in `root`, None where none did; raises FormatError."""
    if not (root / META).exists():
        return None
    return spec_from(read_json(root, Path(META)).get("spec"), META)
