"""The two layouts of HDF5 files: a group for each episode, as robomimic's, and all episodes in one table.

Groups: data/demo_<n> holds obs/<camera> [T, h, w, C], actions [T, A], rewards and dones [T]; actions[t] was taken at
obs[t]. Where next_obs/<camera> is there, its last frame closes the episode. dones mark success or just the end, as a
file's maker chose: they are read as termination only with ?terminal_key=dones. What our writer adds, others overlook:
final_obs/<camera> [1, h, w, C], env_steps [T + 1], terminal, and the spec.

Table: observation [N, C, h, w] or [N, h, w, C], action, reward, discount and step_type (0 first, 1 mid, 2 last) [N], as
V-D4RL's 84-pixel data, or any other names of fields.FIELDS, as D4RL's terminals and timeouts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats import h5
from datamodules.formats.assemble import Assembler
from datamodules.formats.fields import FIELDS, FLAGS, Piece, find_fields, split
from datamodules.formats.guard import spec_from
from datamodules.formats.observed import Selection, channels_last
from datamodules.formats.protocol import FormatError, reading
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

CAMERA, SPEC = "image", "worldmodel_spec"


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode of an open file: its name, its rows, and what reads it (raises FormatError, TrajectoryInvalid)."""

    name: str
    rows: int
    read: Callable[[], Trajectory]


@dataclass(frozen=True, slots=True)
class _Layout:
    """An open file, its name, and how its episodes are read."""

    file: Any
    name: str
    selection: Selection
    terminal_key: str
    assembler: Assembler


class Groups(_Layout):
    """A file with a group `data`."""

    def episodes(self) -> list[Episode]:
        """In the order of their numbers; raises FormatError."""
        demos = demos_of(self.file, self.name)
        return [Episode(f"{self.name} {demo}", self._rows(demo), partial(self._read, demo)) for demo in demos]

    def _rows(self, demo: str) -> int:
        try:
            keys = h5.names(h5.member(self.file, f"data/{demo}", demo), demo)
        except FormatError:
            return 0  # it is left out, and named, when it is read
        rows = h5.length(self.file, f"data/{demo}/{find_fields(keys).get('action', 'actions')}")
        return rows + 1 if rows else 0

    def _read(self, demo: str) -> Trajectory:
        label, convention = f"{self.name} {demo}", self.assembler.convention
        group = h5.member(self.file, f"data/{demo}", label)
        keys = h5.names(group, label)
        key_of = find_fields(keys, terminal_key=self.terminal_key)
        observations = h5.member(group, "obs", label)
        floats = convention.image_scale > 0
        cameras = self.selection.keys or [h5.only_picture(observations, f"{label} obs", axes=(4,), floats=floats)]
        fields: dict[str, Any] = {"action": h5.read_at(group, key_of.get("action", "actions"), label)}
        for field in ("reward", "env_steps"):
            if field in key_of:
                fields[field] = h5.read_at(group, key_of[field], label)
        closes = convention.departs and next((key for key in ("final_obs", "next_obs") if key in keys), None)
        films = []
        for camera in cameras:
            film = h5.read_images(h5.member(observations, camera, label), f"{label} {camera}")
            later = h5.member(group, f"{closes}/{camera}", label) if closes else None
            films.append(_with_last(film, later, f"{label} {closes}") if closes else film)
        fields |= self.selection.fields(dict(zip(cameras, films, strict=True)))
        if "is_terminal" in key_of:
            ends = h5.read_at(group, key_of["is_terminal"], label).reshape(-1)
            if len(ends) == 1 < len(fields["action"]):  # one for the episode
                ends = np.append(np.zeros(len(fields["action"]) - 1, np.bool_), ends != 0)
            fields["is_terminal"] = ends
        used = {key_of[field] for field in ("action", "reward", "env_steps", "is_terminal") if field in key_of}
        used |= {*key_of.values()} if "is_terminal" in key_of else set()
        unread = {*keys} - {*used, "obs", "next_obs", "final_obs"}
        seen = {f"obs/{each.split('/')[0]}" for each in cameras}
        unread |= {f"obs/{key}" for key in h5.names(observations, label)} - seen
        if key_of.get("done") in unread:
            unread = unread - {key_of["done"]} | {f"{key_of['done']} (terminations with terminal_key={key_of['done']})"}
        return self.assembler.trajectory(label, fields, unread=unread)


def demos_of(file: Any, name: str) -> list[str]:
    """The groups of episodes of a file with a group `data`, in the order of their numbers; raises FormatError."""
    return h5.numbered(h5.member(file, "data", name), "demo", name)


class Table(_Layout):
    """A file with one array of each field for all episodes."""

    def episodes(self) -> list[Episode]:
        """In the order of their rows; raises FormatError."""
        name, keys = self.name, h5.names(self.file, self.name)
        images = self.selection.keys or [key for key in FIELDS["pixels"] if key in keys][:1]
        key_of = find_fields(keys, terminal_key=self.terminal_key)
        ends = {"step_type", "is_first", "is_terminal", "is_last", "truncated", "done"} & key_of.keys()
        if not images or not set(images) <= set(keys) or not ends or "action" not in key_of:
            expected = " or ".join(self.selection.keys or FIELDS["pixels"])
            raise FormatError(
                f"{name}: expected data/demo_*, or {expected} with action and step_type, is_first or an array that "
                f"marks ends, got {keys[:20]}"
            )
        flags = {key: h5.read_at(self.file, key_of[key], name) for key in FLAGS if key in key_of}
        rows = (getattr(h5.member(self.file, images[0], name), "shape", None) or (0,))[0]
        pieces, terminal = split(name, flags, rows)
        unread = {*keys} - {*key_of.values(), *images}
        episodes = []
        for piece in pieces:
            label = f"{name} rows {piece.rows.start} to {piece.rows.stop - 1}"
            read = partial(self._read, label, piece, terminal[piece.rows], images, key_of, unread)
            episodes.append(Episode(label, piece.rows.stop - piece.rows.start, read))
        return episodes

    def _read(
        self,
        label: str,
        piece: Piece,
        terminal: NDArray[np.bool_],
        images: Sequence[str],
        key_of: Mapping[str, str],
        unread: set[str],
    ) -> Trajectory:
        fields: dict[str, Any] = {"is_terminal": terminal}
        films = [h5.member(self.file, key, label) for key in images]
        seen = [h5.read_images(film, f"{label} {film.name}", piece.rows) for film in films]
        fields |= self.selection.fields(dict(zip(images, seen, strict=True)))
        for field in ("action", "reward", "env_steps"):
            if field in key_of:
                fields[field] = h5.read_at(self.file, key_of[field], label, piece.rows)
        trajectory = self.assembler.trajectory(label, fields, unread=unread)
        self.assembler.note_piece(piece, key_of, terminal)
        return trajectory


def stored_spec(file: Any, name: str) -> EnvSpec | None:
    """The spec that our writer left in a file of groups, None in any other; raises FormatError where it is no spec."""
    if "data" not in h5.names(file, name):
        return None
    data = h5.member(file, "data", name)
    if SPEC not in h5.names(data, name):
        return None
    text = h5.read(h5.member(data, SPEC, name), f"{name} {SPEC}").tobytes()
    with reading(f"{name} {SPEC}: expected JSON, got", (ValueError, RecursionError)):
        return spec_from(json.loads(text), name)


def _with_last(pixels: NDArray[Any], later: Any, label: str) -> NDArray[Any]:
    count = getattr(later, "shape", (0,))[0] if getattr(later, "shape", ()) else 0
    last = h5.read_images(later, label, slice(max(0, count - 1), count))
    if len(last) != 1 or last.shape[1:] != pixels.shape[1:] or last.dtype != pixels.dtype:
        raise FormatError(
            f"{label}: expected frames of {pixels.dtype} {pixels.shape[1:]}, got {last.dtype} {last.shape}"
        )
    return np.concatenate([pixels, last])


def write_spec(file: Any, spec: EnvSpec) -> None:
    """The group `data` of a new file, as robomimic's and with our spec."""
    data = file.create_group("data")
    text = json.dumps(spec.to_json())
    data.attrs["env_args"] = json.dumps({"env_name": spec.task, "type": 2, "env_kwargs": {}})
    data.attrs["total"] = 0
    data.create_dataset(SPEC, data=np.frombuffer(text.encode(), np.uint8))


def write_episode(file: Any, number: int, trajectory: Trajectory) -> None:
    """Add `data/demo_<number>`."""
    seen = {name: channels_last(values) for name, values in trajectory.observation.items()}
    if list(seen) == ["pixels"] and seen["pixels"].dtype == np.uint8:
        seen = {CAMERA: seen["pixels"]}
    steps = len(trajectory) - 1
    arrays = {
        **{f"obs/{name}": values[:-1] for name, values in seen.items()},
        **{f"final_obs/{name}": values[-1:] for name, values in seen.items()},
        "actions": trajectory.action[1:],
        "rewards": trajectory.reward[1:],
        "dones": (np.arange(steps) == steps - 1).astype(np.int64),
        "env_steps": trajectory.env_steps,
        "terminal": np.uint8(trajectory.terminal),
    }
    group = file["data"].create_group(f"demo_{number}")
    group.attrs["num_samples"] = steps
    for key, values in arrays.items():
        group.create_dataset(key, data=values)
    file["data"].attrs["total"] += steps
