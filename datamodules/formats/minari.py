"""Minari 0.5 data sets in HDF5: `data/main_data.hdf5` with a group `episode_<n>` each, and `data/metadata.json`.

An episode has observations [T + 1, ...] (a data set, or groups of them), actions, rewards, terminations and truncations
[T]. Actions of a Box space are scaled to [-1, 1] by its bounds; of a Discrete space they become one-hot. What the
library takes for pictures (uint8 0..255, 32 x 32 and more) it stores encoded, and expects so; we write PNG there.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats import h5
from datamodules.formats.assemble import Assembler
from datamodules.formats.convention import BY_DEPARTURE, Convention, RowOptions
from datamodules.formats.episode_reader import EpisodeReader
from datamodules.formats.episode_writer import EpisodeWriter, require_empty
from datamodules.formats.guard import inside, read_json, refuse_above, spec_from, write_json
from datamodules.formats.images import encode_picture
from datamodules.formats.observed import is_plain, select
from datamodules.formats.protocol import FormatError, reading
from datamodules.storage.durable import sync
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

FILE, META, OWN = Path("main_data.hdf5"), Path("metadata.json"), "worldmodel_spec"
WHOLE = "observations"  # the name of what is observed where that is no Dict
PICTURE_SIDE = 32  # the library takes what is smaller for an array
ACTIONS = 1024
_DEPTH = 3


class MinariReader(EpisodeReader):
    """Reads the data set at `path` (with or without its folder `data`).

    Args:
        path: of its folder.
        options: how rows are stored. By departure, as Minari has it, or by arrival: action t led to observation t, and
            the last observation, which no action led to, is left out. low, high: without them the bounds are those of
            the action space. terminal_key: "": terminations.
        image_key: of a Dict observation, as camera or camera/rgb, several as a,b for channels side by side; may be left
            out where one is pictures.
        observe: parts of a Dict observation that are read by name, images and vectors, as a,b or name:key, or the
            whole of another one, as observations; "": as our writer left them, or pictures alone.

    Raises:
        FormatError: where nothing can be read. OSError.
    """

    def __init__(
        self, path: Path, *, options: RowOptions = BY_DEPARTURE, image_key: str = "", observe: str = ""
    ) -> None:
        folder = _data_folder(path)
        metadata = read_json(folder, META) if (folder / META).exists() else {}
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise FormatError(f"{META} data_format: expected hdf5, got {metadata['data_format']!r:.40}")
        stored = spec_from(metadata[OWN], f"{META} {OWN}") if OWN in metadata else None
        super().__init__([], Assembler(_convention(metadata, options, stored)))
        self._selection = select(image_key, observe, stored)
        self._ending = options.terminal_key or "terminations"
        self._file = h5.open_file(folder, FILE)
        try:
            self._groups = h5.numbered(self._file, "episode", str(FILE))
            self._count = len(self._groups)
            self.spec = self._known_spec(
                None if observe else stored,
                expected=f"{FILE}: expected a readable episode",
                task=options.task,
                name=path.resolve().name,
                rows=lambda: 1 + max(h5.length(self._file, f"{name}/actions") for name in self._groups),
            )
        except FormatError:
            self.close()
            raise

    def _episodes(self) -> Iterator[tuple[str, Callable[[], Trajectory]]]:
        return ((name, partial(self._read, name)) for name in self._groups)

    def _read(self, name: str) -> Trajectory:
        group = h5.member(self._file, name, str(FILE))
        keys = h5.names(group, name)
        images = self._selection.keys or [self._only_image(group, name)]
        whole = None if h5.is_group(h5.member(group, "observations", name)) else WHOLE
        fields: dict[str, Any] = {"action": h5.read_at(group, "actions", name)}
        if "rewards" in keys:
            fields["reward"] = h5.read_at(group, "rewards", name)
        if self._ending != "none":
            fields["is_terminal"] = h5.read_at(group, self._ending, name)
        infos = h5.names(h5.member(group, "infos", name), name) if "infos" in keys else []
        if "env_steps" in infos:
            fields["env_steps"] = h5.read_at(group, "infos/env_steps", name)
        steps = len(fields["action"]) if fields["action"].ndim else 0
        films = []
        for image in images:
            path = f"observations/{image}" if image and image != whole else "observations"
            film = h5.read_images(h5.member(group, path, name), f"{name} {path}")
            film = film[:, None] if film.ndim == 3 and film.dtype == np.uint8 else film
            if film.ndim < 1 or len(film) != steps + 1:
                raise FormatError(
                    f"{name} {path}: expected T + 1 observations of {steps} actions, got {film.shape[:1]}"
                )
            films.append(film)
        if not self._assembler.convention.departs:
            # no action led to the last observation
            films = [film[:-1] for film in films]
            fields |= {key: fields[key][:-1] for key in ("env_steps",) if key in fields}
        fields |= self._selection.fields(dict(zip(images, films, strict=True)))
        return self._assembler.trajectory(name, fields, unread=self._unread(group, keys, images, infos))

    def _only_image(self, group: Any, name: str) -> str:
        """The path below observations of the only pictures, "" where observations are pictures themselves."""
        observations = h5.member(group, "observations", name)
        floats = self._assembler.convention.image_scale > 0
        return h5.only_picture(observations, f"{name} observations", axes=(3, 4), depth=_DEPTH, floats=floats)

    def _unread(self, group: Any, keys: list[str], images: Sequence[str], infos: list[str]) -> set[str]:
        known = {"observations", "actions", "rewards", "terminations", "truncations", "infos", self._ending}
        unread = set(keys) - known | {f"infos/{key}" for key in infos if key != "env_steps"}
        if list(images) != [""] and h5.is_group(h5.member(group, "observations", "")):
            seen = {image.split("/")[0] for image in images}
            others = set(h5.names(h5.member(group, "observations", ""), "observations")) - seen
            unread |= {f"observations/{key}" for key in others}
        return unread

    def close(self) -> None:
        self._file.close()


class MinariWriter(EpisodeWriter):
    """Writes a new data set at `path`; see Writer. Raises FormatError, OSError.

    Between two calls of `write` the file is closed and whole. HDF5 keeps no journal: a crash during a call may cost
    what is in the file.
    """

    def __init__(self, path: Path, spec: EnvSpec) -> None:
        import h5py

        super().__init__(spec)
        folder = path / "data"
        require_empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._h5py, self._folder = h5py, folder
        self._episodes = self._steps = 0
        self._cameras = {name: _stored_as(shape) for name, shape in spec.images.items()}
        with h5py.File(folder / FILE, "w"):
            pass
        self._publish()

    def _write(self, trajectory: Trajectory) -> None:
        rows = len(trajectory)
        if rows == 1 and trajectory.terminal:
            raise FormatError(f"{trajectory.name}: expected a step for the termination, got a single row")
        last = np.arange(rows - 1) == rows - 2
        arrays = {
            "actions": trajectory.action[1:],
            "rewards": trajectory.reward[1:],
            "terminations": last & trajectory.terminal,
            "truncations": last & (not trajectory.terminal),
            "infos/env_steps": trajectory.env_steps,
        }
        with self._h5py.File(self._folder / FILE, "a") as file:
            group = file.create_group(f"episode_{self._episodes}", track_order=True)
            group.attrs.update({"id": self._episodes, "total_steps": rows - 1})
            plain = is_plain(self._spec)
            for name, values in trajectory.observation.items():
                key = "observations" if plain else f"observations/{name}"
                if name in self._cameras:
                    self._write_frames(group, key, values, *self._cameras[name])
                else:
                    group.create_dataset(key, data=values)
            for key, values in arrays.items():
                group.create_dataset(key, data=values)
        sync(self._folder / FILE)
        self._episodes, self._steps = self._episodes + 1, self._steps + rows - 1
        self._publish()

    def _write_frames(
        self, group: Any, key: str, frames: NDArray[np.uint8], shape: list[int], in_pictures: bool
    ) -> None:
        """Frames [T, C, h, w] as the library decodes them: as pictures where it expects them, else as an array."""
        if not in_pictures:
            frames = frames if shape == [*frames.shape[1:]] else frames.transpose(0, 2, 3, 1)
            group.create_dataset(key, data=np.ascontiguousarray(frames))
            return
        pictures = [np.frombuffer(encode_picture(frame, grey=True), np.uint8) for frame in frames]
        if len({len(picture) for picture in pictures}) == 1:
            # of one length they would become rows of bytes
            group.create_dataset(key, data=np.stack(pictures))
            return
        stored = group.create_dataset(key, (len(pictures),), self._h5py.vlen_dtype(np.uint8))
        for t, picture in enumerate(pictures):
            stored[t] = picture

    def _publish(self) -> None:
        metadata = {
            "total_episodes": self._episodes,
            "total_steps": self._steps,
            "data_format": "hdf5",
            "observation_space": json.dumps(self._space()),
            "action_space": json.dumps(_box("float32", [self._spec.action_dim], -1.0, 1.0)),
            "dataset_id": f"{re.sub(r'[^A-Za-z0-9_-]', '-', self._spec.task)}/worldmodel-v0",
            "minari_version": "0.5.3",
            "jpeg_encoding": True,  # what 0.5.3 takes for granted
            OWN: self._spec.to_json(),
        }
        write_json(self._folder / META, metadata)

    def _space(self) -> dict[str, Any]:
        """The space of observations as the library writes it: of one image, or a Dict of them and of vectors."""
        boxes = {name: _box("uint8", shape, 0, 255) for name, (shape, _) in self._cameras.items()}
        if is_plain(self._spec):
            return boxes["pixels"]
        boxes |= {name: _box("float32", [size], -np.inf, np.inf) for name, size in self._spec.vectors.items()}
        return {"type": "Dict", "subspaces": boxes}


def _stored_as(image: tuple[int, int, int]) -> tuple[list[int], bool]:
    """An image's shape in the space, and whether it is stored in encoded pictures, as the library decodes them."""
    channels, height, width = image
    large = min(height, width) >= PICTURE_SIDE
    if large and channels in (1, 3):
        return [height, width, channels] if channels == 3 else [height, width], True
    # frames of other channels cannot be pictures, and with the channels first they are not taken for some
    return [*image] if large else [height, width, channels], False


def _box(dtype: str, shape: list[int], low: float, high: float) -> dict[str, Any]:
    bounds = {key: np.full(shape, value).tolist() for key, value in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": shape, **bounds}


def _convention(metadata: dict[str, Any], options: RowOptions, stored: EnvSpec | None) -> Convention:
    """How rows are stored, actions as the options or else the action space says; raises FormatError, HostileFile."""
    convention = options.convention(stored)
    errors = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
    with reading(f"{META} action_space: expected a serialised space, got one without", errors):
        space = json.loads(metadata.get("action_space") or "{}")
        if space.get("type") == "Discrete" and not convention.discrete:
            actions, start = int(space["n"]), int(space.get("start", 0))
            refuse_above(ACTIONS, actions, f"{META} action_space: actions")
            return replace(convention, discrete=max(actions, 1), first_action=start)
        if space.get("type") != "Box" or convention.low is not None:
            return convention
        low, high = (np.array(space[key], np.float64).reshape(-1) for key in ("low", "high"))
    bounded = low.shape == high.shape and bool(np.isfinite(high - low).all() and (low < high).all())
    # actions in [-1, 1] stay the values they are
    return replace(convention, low=low, high=high) if bounded and ((low != -1) | (high != 1)).any() else convention


def _data_folder(path: Path) -> Path:
    if not path.is_dir():
        raise FormatError(f"{path}: expected a folder of a Minari data set, got none")
    return path if (path / FILE).exists() else inside(path, Path("data"))


open_reader, open_writer = MinariReader, MinariWriter
