"""LeRobot data sets, version 3: Parquet tables of rows and episodes, cameras as films or as pictures in the table.

Line t of a table holds o[t], the action taken there and, as `next.*`, what it led to. By arrival the last line's action
and reward belong to a frame that was not recorded: they are left out, or `last=repeat` shows the last frame again.
Without `next.reward` rewards are 0; without `next.terminated` and `next.success` every end is a truncation, for
`next.done` marks any end (?terminal_key=next.done reads it).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.assemble import BY_DEPARTURE, Assembler, Convention, RowOptions
from datamodules.formats.guard import find_files, inside, open_inside, read_json, require_array, spec_from
from datamodules.formats.images import Film, decode_picture, fit, require_fps, stack
from datamodules.formats.lerobot_info import OWN, Info, camera_key, convention_of, place, read_info, vector_key
from datamodules.formats.lerobot_writer import LeRobotWriter
from datamodules.formats.observed import names_of, require_spec
from datamodules.formats.parquet import Rows, Table, blobs, matrix
from datamodules.formats.protocol import FormatError, Problem
from datamodules.observation import Observation
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

FAILURES = (FormatError, TrajectoryInvalid, OSError)
_TERMINAL = ("next.terminated", "next.success")
_REQUIRED = ("action", "episode_index", "frame_index", "index")


@dataclass(frozen=True, slots=True)
class _Episode:
    """Where an episode lies. data, film: chunk and file; begin: its first row's number; start: seconds in the film."""

    index: int
    length: int
    data: tuple[int, int]
    begin: int
    film: tuple[int, int] | None
    start: float


class LeRobotReader:
    """Reads a LeRobot data set; see Reader, and `open_reader` for the options."""

    def __init__(
        self,
        root: Path,
        info: Info,
        convention: Convention,
        *,
        size: int,
        terminal: str,
        task: str,
        cameras: Sequence[str],
        vectors: Mapping[str, str],
        name: str,
    ) -> None:
        if terminal not in ("", "none", *info.columns):
            raise FormatError(f"terminal_key: expected one of {', '.join(sorted(info.columns))}, got {terminal!r}")
        self._root, self._info, self._cameras = root, info, cameras
        # the names of this camera and of vectors, with their keys
        self._name, self._vectors = name, vectors
        self._resize, self._repeat, self._task = size > 0, convention.repeat_last, task
        self._assembler = Assembler(convention)
        self.notes = self._assembler.notes
        endings = (terminal,) if terminal else _TERMINAL
        self._terminal = next((key for key in endings if key in info.columns), None)
        self._left_out: list[Problem] = []
        self._episodes = self._find_episodes()
        self.problems = list(self._left_out)
        self.spec = self._find_spec(size)
        self._table: Rows | None = None
        self._film: tuple[Path, Film] | None = None

    def __len__(self) -> int:
        return len(self._episodes) + len(self._left_out)

    def _find_spec(self, size: int) -> EnvSpec:
        shape = (3, *((size, size) if size else self._info.size))
        if not (self._root / OWN).exists():
            longest = max((episode.length for episode in self._episodes), default=1) - (not self._repeat)
            convention, task = self._assembler.convention, self._task or self._root.resolve().name
            repeat, discrete = convention.action_repeat, convention.discrete
            dims = discrete if discrete and self._info.action_dim == 1 else self._info.action_dim
            return EnvSpec(task, {self._name: shape}, dims, repeat, max(1, longest) * repeat, discrete=discrete > 0)
        spec = spec_from(read_json(self._root, OWN).get("spec"), str(OWN))
        if spec.action_dim != self._info.action_dim:
            raise FormatError(f"{OWN} action_dim: expected {self._info.action_dim}, got {spec.action_dim}")
        channels = spec.images[self._name][0] if self._name in spec.images else 3
        images = {self._name: (min(channels, 3), *shape[1:])}
        return replace(spec, images=images, vectors={}, task=self._task or spec.task)

    def _find_episodes(self) -> list[_Episode]:
        files, self._left_out = find_files(inside(self._root, Path("meta")), (".parquet",))
        episodes: list[_Episode] = []
        for path in [Path("meta") / file for file in files if file.parts[0] == "episodes"]:
            try:
                episodes += self._episodes_of(path)
            except (FormatError, OSError) as error:
                self._left_out.append(Problem(str(path), str(error)))
        return episodes

    def _episodes_of(self, path: Path) -> list[_Episode]:
        film = f"videos/{self._info.camera}/"
        keys = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
        if self._info.in_film:
            keys += [film + "chunk_index", film + "file_index", film + "from_timestamp"]
        table = Table(self._root, path)
        try:
            batches = list(table.batches(keys, rows=4096))
        finally:
            table.close()
        lines = [[matrix(batch.column(key), 1, f"{path} {key}")[:, 0] for key in keys] for batch in batches]
        return [self._episode(path, values) for columns in lines for values in zip(*columns, strict=True)]

    def _episode(self, path: Path, values: tuple[Any, ...]) -> _Episode:
        index, length, *rest = (int(value) for value in values[:7])
        start = float(values[7]) if self._info.in_film else 0.0
        if min(length - 1, *rest) < 0 or not 0 <= start < 1e9:
            raise FormatError(f"{path}: expected lengths, indices and times of at least 0, got {values}")
        film = (rest[3], rest[4]) if self._info.in_film else None
        return _Episode(index, length, (rest[0], rest[1]), rest[2], film, start)

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode in the order of the metadata."""
        self.problems[:] = self._left_out
        self.notes.clear()
        for number, index in enumerate(self.indices):
            try:
                trajectory = self.read(number)
            except FAILURES as error:
                self.problems.append(Problem(f"episode {index}", str(error)))
            else:
                yield trajectory

    @property
    def indices(self) -> list[int]:
        """What the metadata call the episodes, in their order."""
        return [episode.index for episode in self._episodes]

    def read(self, number: int) -> Trajectory:
        """Episode `number` of the metadata's order; raises FormatError, TrajectoryInvalid, OSError."""
        episode = self._episodes[number]
        name, rows = f"episode {episode.index}", episode.length
        require_array(f"{name} pixels", (rows + 1, *self.spec.pixels), 1)
        columns, table_frames = self._columns(episode)
        frames = self._film_frames(episode) if self._info.in_film else iter(table_frames)
        pixels = stack(frames, rows, self.spec.pixels, name=f"{name} {self._info.camera}", resize=self._resize)
        observation = {self._name: pixels} | {name: columns[key] for name, key in self._vectors.items()}
        fields: dict[str, Any] = {"observation": observation, "action": columns["action"]}
        if "next.reward" in columns:
            fields["reward"] = columns["next.reward"]
        if self._terminal is not None:
            fields["is_terminal"] = self._endings(columns[self._terminal])
        if "next.env_steps" in columns:
            steps = np.concatenate([np.zeros(1), columns["next.env_steps"]])
            fields["env_steps"] = steps[: rows + self._repeat]
        label = f"{self._root.resolve().name} {name}"
        trajectory = self._assembler.trajectory(label, fields, unread=self._unread())
        vectors = {name: self._info.vectors[key] for name, key in self._vectors.items()}
        require_spec(replace(self.spec, vectors=vectors), trajectory)
        return trajectory

    def _endings(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where the episode terminates [T]: only its end counts, though a success may have been noted before."""
        endings, rows = np.zeros(len(values), np.bool_), len(values)
        shown = rows - 1 if self._repeat or not self._assembler.convention.departs else rows - 2
        endings[rows - 1] = values[rows - 1]
        if shown >= 0:
            endings[shown] = values[shown]
        return endings

    def _unread(self) -> frozenset[str]:
        """Features that are neither the camera nor numbers that are read, nor made of these."""
        known = {*self._numbers(), *self._cameras, "timestamp", "task_index", *_TERMINAL}
        return self._info.columns - (known | {"next.done"} if self._terminal in _TERMINAL else known)

    def _columns(self, episode: _Episode) -> tuple[dict[str, NDArray[Any]], list[NDArray[np.uint8]]]:
        """The numbers of an episode's rows by column, and its frames where they lie in the table."""
        path = place(self._info.data_path, chunk=episode.data[0], file=episode.data[1])
        if self._table is None or self._table.path != path:
            self._close_table()
            # pictures are large: a few rows at a time
            rows = 1024 if self._info.in_film else 8
            keys = self._numbers() if self._info.in_film else [*self._numbers(), self._info.camera]
            self._table = Rows(self._root, path, keys, batch_rows=rows)
        parts: list[dict[str, NDArray[Any]]] = []
        frames: list[NDArray[np.uint8]] = []
        for batch in self._table.take(episode.begin, episode.begin + episode.length):
            parts.append({key: self._values(path, key, batch.column(key)) for key in self._numbers()})
            if not self._info.in_film:
                frames += [self._fitted(data) for data in blobs(batch.column(self._info.camera), str(path))]
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        counted = np.arange(episode.length)
        numbers = {"episode_index": episode.index, "frame_index": counted, "index": episode.begin + counted}
        for key, expected in numbers.items():
            if (columns[key] != expected).any():
                raise FormatError(f"{path} {key}: expected the rows of episode {episode.index}, got others")
        return columns, frames

    def _numbers(self) -> list[str]:
        optional = ("next.reward", "next.env_steps", self._terminal)
        return [*_REQUIRED, *self._vectors.values(), *(key for key in optional if key in self._info.columns)]

    def _values(self, path: Path, key: str, column: Any) -> NDArray[Any]:
        sizes = {"action": self._info.action_dim, **{each: self._info.vectors[each] for each in self._vectors.values()}}
        values = matrix(column, sizes.get(key, 1), f"{path} {key}")
        return values if key in sizes else values[:, 0]

    def _fitted(self, data: bytes) -> NDArray[np.uint8]:
        frame = decode_picture(data, self._info.camera)
        frame = fit(frame, self.spec.pixels[1:]) if self._resize else frame
        if frame.shape[:2] != self.spec.pixels[1:]:
            raise FormatError(
                f"{self._info.camera}: expected {self.spec.pixels[1:]}, got {frame.shape[:2]}: see ?size="
            )
        return frame

    def _film_frames(self, episode: _Episode) -> Iterator[NDArray[np.uint8]]:
        assert episode.film is not None
        path = place(self._info.video_path, chunk=episode.film[0], file=episode.film[1], key=self._info.camera)
        if self._film is None or self._film[0] != path:
            self._close_film()
            self._film = path, Film(os.fdopen(open_inside(self._root, path), "rb"), str(path))
        return self._film[1].at(episode.start, fps=self._info.fps, count=episode.length)

    def _close_table(self) -> None:
        if self._table is not None:
            self._table.close()
        self._table = None

    def _close_film(self) -> None:
        if self._film is not None:
            self._film[1].close()
        self._film = None

    def close(self) -> None:
        """Close the table and the film in use."""
        self._close_table()
        self._close_film()


class SeveralCameras:
    """The same episodes seen by several cameras, as channels side by side or by name; see Reader."""

    def __init__(
        self, readers: Sequence[LeRobotReader], *, vectors: Mapping[str, int] | None = None, named: bool = False
    ) -> None:
        self._readers, first, self._named = readers, readers[0], named
        for reader in readers[1:]:
            if reader.indices != first.indices or (not named and reader.spec.pixels != first.spec.pixels):
                raise FormatError(
                    f"camera: expected cameras of the same episodes and size, got {len(reader)} of "
                    f"{reader.spec.pixels} and {len(first)} of {first.spec.pixels}: see ?size="
                )
        _, *size = first.spec.pixels
        images = {"pixels": (sum(reader.spec.pixels[0] for reader in readers), *size)}
        if named:
            images = {name: shape for reader in readers for name, shape in reader.spec.images.items()}
        self.spec = replace(first.spec, images=images, vectors=dict(vectors or {}))
        self.problems, self.notes = list(first.problems), first.notes

    def __len__(self) -> int:
        return len(self._readers[0])

    def trajectories(self) -> Iterator[Trajectory]:
        """Every episode that all cameras have."""
        first = self._readers[0]
        self.problems[:] = first.problems
        self.notes.clear()
        for number, index in enumerate(first.indices):
            try:
                seen = [reader.read(number) for reader in self._readers]
            except FAILURES as error:
                self.problems.append(Problem(f"episode {index}", str(error)))
            else:
                yield replace(seen[0], observation=self._joined(seen))

    def _joined(self, seen: Sequence[Trajectory]) -> Observation:
        if not self._named:
            return {"pixels": np.concatenate([each.pixels for each in seen], 1)}
        by_name = {name: values for each in seen for name, values in each.observation.items()}
        return {name: by_name[name] for name in (*self.spec.images, *self.spec.vectors)}

    def close(self) -> None:
        """Close the files of all cameras."""
        for reader in self._readers:
            reader.close()


def open_reader(
    path: Path,
    *,
    options: RowOptions = BY_DEPARTURE,
    camera: str = "",
    observe: str = "",
    size: int = 0,
    terminal: str = "",
) -> "LeRobotReader | SeveralCameras":
    """Read the data set at `path`.

    Args:
        path: of its folder.
        options: how rows are stored, by departure where nothing else is said. low, high: without them the bounds are
            those of stats.json where they exceed [-1, 1].
        camera: key of its feature, may be left out where there is one; several as a,b become channels side by side.
        observe: cameras (one at least) and vectors that are read by name, as top,wrist,state; "": as our writer left
            them, or the camera alone.
        size: side to which frames are resized by area; 0: as recorded.
        terminal: another name of terminal_key.

    Raises:
        FormatError: where nothing can be read. OSError.
    """
    names = [] if camera else names_of(observe, _stored_spec(path))
    if names:
        return _named_reader(path, names, options, size=size, terminal=terminal or options.terminal_key)
    infos = [read_info(path, key) for key in camera.split(",")]
    cameras, ending = [info.camera for info in infos], terminal or options.terminal_key
    readers = [
        LeRobotReader(
            path,
            info,
            convention_of(path, info, options),
            size=size,
            terminal=ending,
            task=options.task,
            cameras=cameras,
            vectors={},
            name="pixels",
        )
        for info in infos
    ]
    return readers[0] if len(readers) == 1 else SeveralCameras(readers)


def _stored_spec(path: Path) -> EnvSpec | None:
    return spec_from(read_json(path, OWN).get("spec"), str(OWN)) if (path / OWN).exists() else None


def _named_reader(path: Path, names: Sequence[str], options: RowOptions, *, size: int, terminal: str) -> SeveralCameras:
    first = read_info(path, "", several=True)
    cameras = {name: key for name in names if (key := camera_key(name, first))}
    vectors = {name: key for name in names if name not in cameras and (key := vector_key(name, first))}
    if not cameras or len(cameras) + len(vectors) < len(names):
        known = ", ".join([*first.cameras, *first.vectors])
        raise FormatError(f"observe: expected names of {known}, one camera at least, got {','.join(names)}")
    readers: list[LeRobotReader] = []
    for name, key in cameras.items():
        info = read_info(path, key)
        readers.append(
            LeRobotReader(
                path,
                info,
                convention_of(path, info, options),
                size=size,
                terminal=terminal,
                task=options.task,
                cameras=[*cameras.values()],
                vectors={} if readers else vectors,
                name=name,
            )
        )
    return SeveralCameras(readers, vectors={name: first.vectors[key] for name, key in vectors.items()}, named=True)


def open_writer(path: Path, spec: EnvSpec, *, codec: str = "h264", fps: float = 30.0) -> LeRobotWriter:
    """Write a new data set at `path`; raises FormatError, OSError.

    codec: h264 (small, not exact), lossless (films of RGB) or png (pictures in the table).
    """
    require_fps(fps)
    return LeRobotWriter(path, spec, codec=codec, fps=fps)
