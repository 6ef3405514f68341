"""LeRobot data sets, version 3: Parquet tables of rows and episodes, cameras as films or as pictures in the table.

Line t of a table holds o[t], the action taken there and, as `next.*`, what it led to. By arrival the last line's action
and reward belong to a frame that was not recorded: they are left out, or `last=repeat` shows the last frame again.
Without `next.reward` rewards are 0; without `next.terminated` and `next.success` every end is a truncation, for
`next.done` marks any end (?terminal_key=next.done reads it).
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.assemble import Assembler
from datamodules.formats.convention import BY_DEPARTURE, RowOptions
from datamodules.formats.episode_reader import EpisodeReader
from datamodules.formats.guard import find_files, inside, open_inside, require_array
from datamodules.formats.images import Film, decode_picture, fit, stack
from datamodules.formats.lerobot_info import (
    OWN,
    Camera,
    cameras_of,
    convention_of,
    length_of,
    named_parts,
    place,
    read_info,
)
from datamodules.formats.lerobot_writer import LeRobotWriter
from datamodules.formats.observed import keys_of, stored_spec, with_task
from datamodules.formats.parquet import Rows, Table, blobs, matrix
from datamodules.formats.protocol import FormatError, Problem
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

_TERMINAL = ("next.terminated", "next.success")
_REQUIRED = ("action", "episode_index", "frame_index", "index")


@dataclass(frozen=True, slots=True)
class _Episode:
    """Where an episode lies. data: chunk and file; begin: its first row's number.

    films: by camera chunk and file, and the seconds in the film.
    """

    index: int
    length: int
    data: tuple[int, int]
    begin: int
    films: dict[str, tuple[int, int, float]]


class LeRobotReader(EpisodeReader):
    """Reads the data set at `path`.

    Args:
        path: of its folder.
        options: how rows are stored, by departure where nothing else is said. low, high: without them the bounds are
            those of stats.json where they exceed [-1, 1].
        camera: key of its feature, may be left out where there is one; several as a,b become channels side by side.
        observe: cameras (one at least) and vectors that are read by name, as top,wrist,state or
            name:key; "": as our writer left them, or the camera alone.
        size: side to which frames are resized by area; 0: as recorded.
        terminal: another name of terminal_key.

    Raises:
        FormatError: where nothing can be read. OSError.
    """

    def __init__(
        self,
        path: Path,
        *,
        options: RowOptions = BY_DEPARTURE,
        camera: str = "",
        observe: str = "",
        size: int = 0,
        terminal: str = "",
    ) -> None:
        info, stored, terminal = read_info(path), stored_spec(path, OWN), terminal or options.terminal_key
        keys = {} if camera else keys_of(observe, stored)
        if keys:
            cameras, self._vectors = named_parts(info, keys)
        else:
            cameras, self._vectors = cameras_of(info, camera), {}
        convention = convention_of(path, info, options)
        if terminal not in ("", "none", *info.features):
            raise FormatError(f"terminal_key: expected one of {', '.join(sorted(info.features))}, got {terminal!r}")
        self._root, self._info, self._named = path, info, bool(keys)
        self._sizes = {key: length_of(key, info.features[key]) for key in ("action", *self._vectors.values())}
        self._resize, self._repeat = size > 0, convention.repeat_last
        endings = (terminal,) if terminal else _TERMINAL
        self._terminal = next((key for key in endings if key in info.features), None)
        files, left_out = find_files(inside(path, Path("meta")), (".parquet",))
        super().__init__(left_out, Assembler(convention))
        self._cameras = [_shown(each, stored, size) for each in cameras]
        self._placed = [episode for file in files if file.parts[0] == "episodes" for episode in self._listed(file)]
        self._count = len(self._placed)
        self.spec = self._find_spec(stored, options.task)
        self._table: Rows | None = None
        self._films: dict[str, tuple[Path, Film]] = {}

    def _find_spec(self, stored: EnvSpec | None, task: str) -> EnvSpec:
        images, dims = {camera.name: camera.shape for camera in self._cameras}, self._info.action_dim
        if not self._named:
            sizes = {camera.shape[1:] for camera in self._cameras}
            if len(sizes) > 1:
                raise FormatError(f"camera: expected cameras of one size, got {sorted(sizes)}: see ?size=")
            images = {"pixels": (sum(camera.shape[0] for camera in self._cameras), *sizes.pop())}
        vectors = {name: self._sizes[key] for name, key in self._vectors.items()}
        if stored is None:
            rows = max((episode.length for episode in self._placed), default=1) + self._repeat
            dims = (self._assembler.convention.discrete or dims) if dims == 1 else dims
            return self._assembler.spec((images, vectors), dims, task=task or self._root.resolve().name, rows=rows)
        if stored.action_dim != dims:
            raise FormatError(f"{OWN} action_dim: expected {dims}, got {stored.action_dim}")
        return with_task(replace(stored, images=images, vectors=vectors), task)

    def _listed(self, file: Path) -> list[_Episode]:
        """The episodes of one table of metadata; what cannot be read is left out."""
        path = Path("meta") / file
        keys = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
        films = [camera.key for camera in self._cameras if camera.in_film]
        parts = ("chunk_index", "file_index", "from_timestamp")
        keys += [f"videos/{film}/{part}" for film in films for part in parts]
        try:
            table = Table(self._root, path)
            try:
                batches = list(table.batches(keys, rows=4096))
            finally:
                table.close()
            lines = [[matrix(batch.column(key), 1, f"{path} {key}")[:, 0] for key in keys] for batch in batches]
            return [_episode(path, films, line) for columns in lines for line in zip(*columns, strict=True)]
        except (OSError, ValueError, OverflowError) as error:
            self._left_out.append(Problem(str(path), str(error)))
            self.problems.append(self._left_out[-1])
            return []

    def _episodes(self) -> Iterator[tuple[str, Callable[[], Trajectory]]]:
        return ((f"episode {episode.index}", partial(self._read, episode)) for episode in self._placed)

    def _read(self, episode: _Episode) -> Trajectory:
        name, rows = f"episode {episode.index}", episode.length
        require_array(f"{name} images", (rows + 1, sum(math.prod(camera.shape) for camera in self._cameras)), 1)
        columns, pictures = self._columns(episode)
        films = []
        for camera in self._cameras:
            frames = self._film_frames(episode, camera.key) if camera.in_film else iter(pictures[camera.key])
            films.append(stack(frames, rows, camera.shape, name=f"{name} {camera.key}", resize=self._resize))
        fields: dict[str, Any] = {"pixels": films, "action": columns["action"]}
        if self._named:
            seen = dict(zip([camera.name for camera in self._cameras], films, strict=True))
            fields["observation"] = seen | {name: columns[key] for name, key in self._vectors.items()}
        if "next.reward" in columns:
            fields["reward"] = columns["next.reward"]
        if self._terminal is not None:
            fields["is_terminal"] = self._endings(columns[self._terminal])
        if "next.env_steps" in columns:
            steps = np.concatenate([np.zeros(1), columns["next.env_steps"]])
            fields["env_steps"] = steps[: rows + self._repeat]
        return self._assembler.trajectory(f"{self._root.resolve().name} {name}", fields, unread=self._unread())

    def _endings(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where the episode terminates [T]: only its end counts, though a success may have been noted before."""
        endings, rows = np.zeros(len(values), np.bool_), len(values)
        shown = rows - 1 if self._repeat or not self._assembler.convention.departs else rows - 2
        endings[rows - 1] = values[rows - 1]
        if shown >= 0:
            endings[shown] = values[shown]
        return endings

    def _unread(self) -> set[str]:
        """Features that are neither the cameras nor numbers that are read, nor made of these."""
        cameras = [camera.key for camera in self._cameras]
        known = {*self._numbers(), *cameras, "timestamp", "task_index", *_TERMINAL}
        return set(self._info.features) - (known | {"next.done"} if self._terminal in _TERMINAL else known)

    def _columns(self, episode: _Episode) -> tuple[dict[str, NDArray[Any]], dict[str, list[NDArray[np.uint8]]]]:
        """The numbers of an episode's rows by column, and by camera the frames that lie in the table."""
        path = place(self._info.data_path, chunk=episode.data[0], file=episode.data[1])
        cameras = {camera.key: camera.shape[1:] for camera in self._cameras if not camera.in_film}
        if self._table is None or self._table.path != path:
            self._close_table()
            # pictures are large: a few rows at a time
            batch_rows = 8 if cameras else 1024
            self._table = Rows(self._root, path, [*self._numbers(), *cameras], batch_rows=batch_rows)
        parts: list[dict[str, NDArray[Any]]] = []
        frames: dict[str, list[NDArray[np.uint8]]] = {key: [] for key in cameras}
        for batch in self._table.take(episode.begin, episode.begin + episode.length):
            parts.append({key: self._values(path, key, batch.column(key)) for key in self._numbers()})
            for key, size in cameras.items():
                pictures = (decode_picture(data, key) for data in blobs(batch.column(key), str(path)))
                frames[key] += (fit(each, size) if self._resize else each for each in pictures)
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        counted = np.arange(episode.length)
        numbers = {"episode_index": episode.index, "frame_index": counted, "index": episode.begin + counted}
        for key, expected in numbers.items():
            if (columns[key] != expected).any():
                raise FormatError(f"{path} {key}: expected the rows of episode {episode.index}, got others")
        return columns, frames

    def _numbers(self) -> list[str]:
        optional = ("next.reward", "next.env_steps", self._terminal or "")
        return [*_REQUIRED, *self._vectors.values(), *(key for key in optional if key in self._info.features)]

    def _values(self, path: Path, key: str, column: Any) -> NDArray[Any]:
        values = matrix(column, self._sizes.get(key, 1), f"{path} {key}")
        return values if key in self._sizes else values[:, 0]

    def _film_frames(self, episode: _Episode, camera: str) -> Iterator[NDArray[np.uint8]]:
        chunk, file, start = episode.films[camera]
        path = place(self._info.video_path, chunk=chunk, file=file, key=camera)
        if camera not in self._films or self._films[camera][0] != path:
            self._close_film(camera)
            self._films[camera] = path, Film(os.fdopen(open_inside(self._root, path), "rb"), str(path))
        return self._films[camera][1].at(start, fps=self._info.fps, count=episode.length)

    def _close_table(self) -> None:
        if self._table is not None:
            self._table.close()
        self._table = None

    def _close_film(self, camera: str) -> None:
        if camera in self._films:
            self._films.pop(camera)[1].close()

    def close(self) -> None:
        self._close_table()
        for camera in list(self._films):
            self._close_film(camera)


def _shown(camera: Camera, stored: EnvSpec | None, size: int) -> Camera:
    """A camera with the channels that our writer was given, and frames of the size that is asked for, if any."""
    channels, height, width = camera.shape
    if stored is not None and camera.name in stored.images:
        channels = min(stored.images[camera.name][0], 3)
    return replace(camera, shape=(channels, size or height, size or width))


def _episode(path: Path, films: Sequence[str], line: tuple[Any, ...]) -> _Episode:
    """An episode from its line of metadata, three numbers for each film at its end; raises FormatError."""
    index, length, chunk, file, begin = (int(value) for value in line[:5])
    places = {
        film: (int(line[at]), int(line[at + 1]), float(line[at + 2]))
        for film, at in zip(films, range(5, len(line), 3), strict=True)
    }
    if min(length - 1, chunk, file, begin, *(value for film in places.values() for value in film)) < 0 or not all(
        start < 1e9 for _, _, start in places.values()
    ):
        raise FormatError(f"{path}: expected lengths, indices and times of at least 0, got {line}")
    return _Episode(index, length, (chunk, file), begin, places)


open_reader, open_writer = LeRobotReader, LeRobotWriter
