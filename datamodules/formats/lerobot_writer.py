"""Writes LeRobot data sets, version 3, an episode at a time: what was written before a crash can be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats import images
from datamodules.formats.episode_writer import EpisodeWriter, require_actions, require_empty
from datamodules.formats.guard import write_json
from datamodules.formats.lerobot_info import DATA_PATH, INFO, OWN, STATS, VIDEO_PATH, place
from datamodules.formats.observed import is_plain
from datamodules.formats.protocol import FormatError
from datamodules.storage.durable import beside, publish
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

CAMERA = "observation.images.camera"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNK_FILES = 1000
_NUMBERS = {
    "next.reward": "float32",
    "next.done": "bool",
    "next.terminated": "bool",
    "next.env_steps": "int64",
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


class LeRobotWriter(EpisodeWriter):
    """Writes a new data set at `root`, each episode as a table, a film and a line of metadata of its own; see Writer.

    The metadata come last: files that they do not name belong to an episode that was not finished.
    codec: h264 (small, not exact), lossless (films of RGB) or png (pictures in the table). Raises FormatError, OSError.
    """

    def __init__(self, root: Path, spec: EnvSpec, *, codec: str = "h264", fps: float = 30.0) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        super().__init__(spec)
        images.require_fps(fps)
        self._pa, self._parquet = pa, parquet
        for shape in spec.images.values():
            if shape[0] not in (1, 3):
                raise FormatError(f"{root}: expected frames of 1 or 3 channels, got {shape[0]}")
        if not spec.images:
            raise FormatError(f"{root}: expected an image at least, got {spec.observed}: npz, hdf5 and minari hold it")
        require_actions(root, spec)
        plain = is_plain(spec)
        self._cameras = {name: CAMERA if plain else f"observation.images.{name}" for name in spec.images}
        self._vectors = {name: f"observation.{name}" for name in spec.vectors}
        self._in_film = codec != "png"
        if self._in_film:
            images.require_codec(codec)
        require_empty(root)
        self._root, self._codec, self._fps = root, codec, fps
        self._episodes = self._frames = 0
        # numbers of the columns that hold lists
        self._sizes = {"action": spec.action_dim, **{key: spec.vectors[name] for name, key in self._vectors.items()}}
        self._moments = {key: Moments(size) for key, size in {**self._sizes, "next.reward": 1}.items()}
        # by channel, in 0..1
        self._shades = {name: Moments(shape[0]) for name, shape in spec.images.items()}
        (root / "meta").mkdir(parents=True, exist_ok=True)
        write_json(root / OWN, {"spec": spec.to_json()})
        self._write_tasks()
        write_json(root / INFO, self._info())

    def _write(self, trajectory: Trajectory) -> None:
        place_of: dict[str, Any] = {"chunk": self._episodes // CHUNK_FILES, "file": self._episodes % CHUNK_FILES}
        if self._in_film:
            for name, key in self._cameras.items():
                film = self._folder_of(place(VIDEO_PATH, **place_of, key=key))
                images.encode_film(film, trajectory.observation[name], fps=self._fps, codec=self._codec)
        columns = self._columns(trajectory)
        self._write_table(place(DATA_PATH, **place_of), self._table(trajectory, columns))
        for key, moments in self._moments.items():
            moments.add(columns[key].reshape(len(trajectory), -1))
        for name, shades in self._shades.items():
            for frame in trajectory.observation[name]:
                shades.add(frame.reshape(len(frame), -1).T / 255)
        begin, rows = self._frames, len(trajectory)
        line = self._line(place_of, begin, rows)
        self._episodes, self._frames = self._episodes + 1, begin + rows
        write_json(self._root / STATS, self._stats())
        self._write_table(place(EPISODES_PATH, **place_of), self._pa.table(line))
        write_json(self._root / INFO, self._info())

    def _columns(self, trajectory: Trajectory) -> dict[str, NDArray[Any]]:
        """The rows by departure: the last line has no action of its own, it repeats what the episode ended by."""
        rows = len(trajectory)
        count = np.arange(rows)
        ends = count >= rows - 2
        departing = {
            "action": trajectory.action,
            "next.reward": trajectory.reward,
            "next.env_steps": trajectory.env_steps,
        }
        return {
            **{key: np.concatenate([v[1:], np.zeros_like(v[:1])]) for key, v in departing.items()},
            "next.done": ends,
            "next.terminated": ends & trajectory.terminal,
            "timestamp": count / self._fps,
            "frame_index": count,
            "episode_index": np.full(rows, self._episodes),
            "index": self._frames + count,
            "task_index": np.zeros(rows),
            **{key: trajectory.observation[name] for name, key in self._vectors.items()},
        }

    def _table(self, trajectory: Trajectory, columns: dict[str, NDArray[Any]]) -> Any:
        pa = self._pa
        arrays = {key: pa.array(columns[key].astype(kind)) for key, kind in _NUMBERS.items()}
        for key, size in self._sizes.items():
            flat = pa.array(np.ascontiguousarray(columns[key]).reshape(-1))
            arrays[key] = pa.FixedSizeListArray.from_arrays(flat, size)
        table = pa.table(arrays)
        if self._in_film:
            return table
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        for name, key in self._cameras.items():
            frames = trajectory.observation[name]
            pictures = [{"bytes": images.encode_picture(f), "path": f"frame-{t:06d}.png"} for t, f in enumerate(frames)]
            table = table.append_column(key, pa.array(pictures, kind))
        # how the `datasets` library knows a picture from a record
        mark = json.dumps({"info": {"features": {key: {"_type": "Image"} for key in self._cameras.values()}}})
        return table.replace_schema_metadata({"huggingface": mark})

    def _line(self, place_of: dict[str, int], begin: int, rows: int) -> dict[str, list[Any]]:
        line: dict[str, list[Any]] = {"episode_index": [self._episodes], "tasks": [[self._spec.task]], "length": [rows]}
        films = [f"videos/{key}" for key in self._cameras.values()] if self._in_film else []
        for part in ("data", "meta/episodes", *films):
            line[f"{part}/chunk_index"], line[f"{part}/file_index"] = [place_of["chunk"]], [place_of["file"]]
        line["dataset_from_index"], line["dataset_to_index"] = [begin], [begin + rows]
        for film in films:
            line[f"{film}/from_timestamp"], line[f"{film}/to_timestamp"] = [0.0], [rows / self._fps]
        return line

    def _camera(self, name: str) -> dict[str, Any]:
        """The feature of one camera."""
        _, height, width = self._spec.images[name]
        camera: dict[str, Any] = {
            "dtype": "image",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        if self._in_film:
            facts = {"height": height, "width": width, "codec": "h264", "fps": self._fps, "channels": 3}
            camera |= {"dtype": "video", "info": {f"video.{key}": value for key, value in facts.items()}}
        return camera

    def _info(self) -> dict[str, Any]:
        cameras = {key: self._camera(name) for name, key in self._cameras.items()}
        kinds = {key: ("float32", size) for key, size in self._sizes.items()}
        kinds |= {key: (kind, 1) for key, kind in _NUMBERS.items()}
        numbers = {key: {"dtype": kind, "shape": [size], "names": None} for key, (kind, size) in kinds.items()}
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": 1,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": round(self._fps) if self._fps == round(self._fps) else self._fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._in_film else None,
            "features": {**cameras, **numbers},
        }

    def _stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = {key: moments.summary() for key, moments in self._moments.items()}
        # pictures: one value a channel, [3, 1, 1]
        for name, camera in self._cameras.items():
            summary = self._shades[name].summary()
            picture: dict[str, Any] = {key: [[[x]] for x in (values * 3)[:3]] for key, values in summary.items()}
            stats[camera] = {**picture, "count": [self._frames]}
        return stats

    def _write_tasks(self) -> None:
        """The one task, as pandas stores a table with an index of strings."""
        table = self._pa.table({"task_index": self._pa.array([0], "int64"), "task": [self._spec.task]})
        names = {"task_index": "int64", "task": "object"}
        columns = [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": kind, "metadata": None}
            for name, kind in names.items()
        ]
        columns[1]["pandas_type"] = "unicode"
        mark = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
        self._write_table(Path("meta/tasks.parquet"), table.replace_schema_metadata({"pandas": json.dumps(mark)}))

    def _write_table(self, path: Path, table: Any) -> None:
        target = self._folder_of(path)
        self._parquet.write_table(table, beside(target), compression="snappy")
        publish(target)

    def _folder_of(self, path: Path) -> Path:
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        return self._root / path


class Moments:
    """Running statistics of rows [n, D]; parts are merged pairwise (Chan, Golub and LeVeque, 1979)."""

    def __init__(self, dims: int) -> None:
        self._count, self._mean, self._spread = 0, np.zeros(dims), np.zeros(dims)
        self._least, self._most = np.full(dims, np.inf), np.full(dims, -np.inf)

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in rows [n, D], n > 0."""
        values = rows.astype(np.float64)
        mean, total = values.mean(0), self._count + len(values)
        shift = mean - self._mean
        self._least, self._most = np.minimum(self._least, values.min(0)), np.maximum(self._most, values.max(0))
        self._spread += ((values - mean) ** 2).sum(0) + shift**2 * self._count * len(values) / total
        self._mean += shift * len(values) / total
        self._count = total

    def summary(self) -> dict[str, list[float]]:
        """min, max, mean and std (of the population) as lists [D], and count [1]."""
        std = np.sqrt(self._spread / self._count)
        values = {"min": self._least, "max": self._most, "mean": self._mean, "std": std}
        return {**{key: value.tolist() for key, value in values.items()}, "count": [self._count]}
