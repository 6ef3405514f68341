"""Minari 0.5 data sets in HDF5: `data/main_data.hdf5` with a group `episode_<n>` each, and `data/metadata.json`.

An episode has observations [T + 1, ...] (a data set, or groups of them), actions, rewards, terminations and truncations
[T]. Actions of a Box space are scaled to [-1, 1] by its bounds; of a Discrete space they become one-hot.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats import h5
from datamodules.formats.assemble import Convention, assemble, ends_by_termination, require_spec, side_by_side
from datamodules.formats.guard import inside, read_json, refuse_above, spec_from, write_json
from datamodules.formats.protocol import FormatError, Problem, in_short
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

FILE, META, OWN = Path("main_data.hdf5"), Path("metadata.json"), "worldmodel_spec"
ACTIONS = 1024
_DEPTH = 3


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the metadata say. spec: ours, where we wrote them. low, high: bounds of a Box of actions that are not ours.

    actions: of a Discrete space, which begin at `start`.
    """

    spec: EnvSpec | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    actions: int = 0
    start: int = 0


class MinariReader:
    """Reads a Minari data set; see Reader, and `open_reader` for the options."""

    def __init__(self, folder: Path, facts: "_Facts", convention: Convention, *, image_key: str, task: str) -> None:
        self._file = h5.open_file(folder, FILE)
        self._facts, self._convention, self._image_key = facts, convention, image_key
        try:
            groups = [re.fullmatch(r"episode_(\d{1,12})", name) for name in h5.names(self._file, str(FILE))]
            self._episodes = sorted((int(group[1]), group[0]) for group in groups if group)
            self.problems: list[Problem] = []
            self.spec = facts.spec or self._guess_spec(task)
        except FormatError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._episodes)

    def _guess_spec(self, task: str) -> EnvSpec:
        reasons, repeat = [], self._convention.action_repeat
        for _, name in self._episodes:
            try:
                first = self._read(name)
            except (FormatError, TrajectoryInvalid) as error:
                reasons.append(str(error))
                continue
            steps = max(1, *(self._length(other) for _, other in self._episodes)) * repeat
            discrete = self._facts.actions > 0
            return EnvSpec(
                task, {"pixels": first.pixels.shape[1:]}, first.action.shape[1], repeat, steps, discrete=discrete
            )
        raise FormatError(f"{FILE}: expected a readable episode, got none: {in_short(reasons)}")

    def _length(self, name: str) -> int:
        try:
            return int(h5.member(self._file, f"{name}/rewards", name).shape[0])
        except (FormatError, AttributeError, IndexError, TypeError):
            return 0  # it is left out, and named, when it is read

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode in the order of the numbers."""
        self.problems[:] = []
        for _, name in self._episodes:
            try:
                trajectory = self._read(name)
                require_spec(self.spec, trajectory)
            except (FormatError, TrajectoryInvalid) as error:
                self.problems.append(Problem(name, str(error)))
            else:
                yield trajectory

    def _read(self, name: str) -> Trajectory:
        group = h5.member(self._file, name, str(FILE))
        rewards = h5.read(h5.member(group, "rewards", name), f"{name} rewards")
        endings = h5.read(h5.member(group, "terminations", name), f"{name} terminations")
        pixels = side_by_side(name, [h5.read(image, f"{name} {image.name}") for image in self._images_of(group, name)])
        if rewards.shape != endings.shape or pixels.ndim < 1 or len(pixels) != rewards.size + 1:
            raise FormatError(
                f"{name}: expected T + 1 observations of T rewards and terminations, got {pixels.shape[:1]} of "
                f"{rewards.shape} and {endings.shape}"
            )
        steps = None
        if "infos" in h5.names(group, name) and "env_steps" in h5.names(h5.member(group, "infos", name), name):
            steps = h5.read(h5.member(group, "infos/env_steps", name), f"{name} env_steps")
        if self._convention.alignment == "arrival":
            pixels, steps = pixels[:-1], steps if steps is None else steps[:-1]
        return assemble(
            name,
            pixels=pixels if pixels.ndim != 3 else pixels[:, None],
            action=self._actions(h5.read(h5.member(group, "actions", name), f"{name} actions"), name),
            reward=rewards,
            terminal=bool(len(endings)) and ends_by_termination(name, endings),
            convention=self._convention,
            env_steps=steps,
        )

    def _actions(self, actions: NDArray[Any], name: str) -> NDArray[Any]:
        if not self._facts.actions:
            return actions
        if actions.dtype.kind not in "iu" or actions.ndim != 1:
            raise FormatError(f"{name} actions: expected integers [T], got {actions.dtype} {actions.shape}")
        taken = actions.astype(np.int64) - self._facts.start
        if ((taken < 0) | (taken >= self._facts.actions)).any():
            raise FormatError(
                f"{name} actions: expected {self._facts.actions} actions, got {taken.min()}..{taken.max()}"
            )
        return np.eye(self._facts.actions, dtype=np.float32)[taken]

    def _images_of(self, group: Any, name: str) -> list[Any]:
        """The observations that are named, else the only one of uint8 images."""
        if self._image_key:
            return [h5.member(group, f"observations/{key}", name) for key in self._image_key.split(",")]
        observations = h5.member(group, "observations", name)
        found = list(_pictures(observations, name, _DEPTH))
        if len(found) != 1:
            keys = ", ".join(str(each.name) for each in found) or "none"
            raise FormatError(f"{name} observations: expected one of uint8 pictures, got {keys}: say ?image_key=...")
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _pictures(node: Any, name: str, depth: int) -> Iterator[Any]:
    if hasattr(node, "dtype"):
        if node.dtype == np.uint8 and node.ndim in (3, 4):
            yield node
    elif depth:
        for key in h5.names(node, name):
            yield from _pictures(h5.member(node, key, name), name, depth - 1)


class MinariWriter:
    """Writes a Minari data set; see Writer.

    Between two calls of `write` the file is closed and whole. HDF5 keeps no journal: a crash during a call may cost
    what is in the file.
    """

    def __init__(self, folder: Path, spec: EnvSpec) -> None:
        import h5py

        self._h5py, self._folder, self._spec = h5py, folder, spec
        self._episodes = self._steps = 0
        if any(folder.iterdir()):
            raise FormatError(f"{folder}: expected an empty folder or none, got one with files")
        with h5py.File(folder / FILE, "w"):
            pass
        self._publish()

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode, durable on return; raises TrajectoryInvalid, FormatError, OSError."""
        trajectory.check()
        require_spec(self._spec, trajectory)
        rows = len(trajectory)
        if rows == 1 and trajectory.terminal:
            raise FormatError(f"{trajectory.name}: expected a step for the termination, got a single row")
        last = np.arange(rows - 1) == rows - 2
        arrays = {
            "observations": np.ascontiguousarray(trajectory.pixels.transpose(0, 2, 3, 1)),
            "actions": trajectory.action[1:],
            "rewards": trajectory.reward[1:],
            "terminations": last & trajectory.terminal,
            "truncations": last & (not trajectory.terminal),
            "infos/env_steps": trajectory.env_steps,
        }
        with self._h5py.File(self._folder / FILE, "a") as file:
            group = file.create_group(f"episode_{self._episodes}", track_order=True)
            group.attrs.update({"id": self._episodes, "total_steps": rows - 1})
            for key, values in arrays.items():
                group.create_dataset(key, data=values)
        fd = os.open(self._folder / FILE, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._episodes, self._steps = self._episodes + 1, self._steps + rows - 1
        self._publish()

    def _publish(self) -> None:
        channels, height, width = self._spec.pixels
        metadata = {
            "total_episodes": self._episodes,
            "total_steps": self._steps,
            "data_format": "hdf5",
            "observation_space": json.dumps(_box("uint8", [height, width, channels], 0, 255)),
            "action_space": json.dumps(_box("float32", [self._spec.action_dim], -1.0, 1.0)),
            "dataset_id": f"{re.sub(r'[^A-Za-z0-9_-]', '-', self._spec.task)}/worldmodel-v0",
            "minari_version": "0.5.3",
            OWN: self._spec.to_json(),
        }
        write_json(self._folder / META, metadata)

    def close(self) -> None:
        """The file is closed between episodes."""


def _box(dtype: str, shape: list[int], low: float, high: float) -> dict[str, Any]:
    bounds = {key: np.full(shape, value).tolist() for key, value in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": shape, **bounds}


def _facts_of(metadata: dict[str, Any]) -> _Facts:
    """The facts in metadata.json, checked; raises FormatError, HostileFile."""
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise FormatError(f"{META} data_format: expected hdf5, got {metadata['data_format']!r:.40}")
    spec = spec_from(metadata[OWN], f"{META} {OWN}") if OWN in metadata else None
    try:
        space = json.loads(metadata.get("action_space") or "{}")
        if space.get("type") == "Discrete":
            actions, start = int(space["n"]), int(space.get("start", 0))
            refuse_above(ACTIONS, actions, f"{META} action_space: actions")
            return _Facts(spec, actions=max(actions, 1), start=start)
        if space.get("type") != "Box":
            return _Facts(spec)
        low, high = (np.array(space[key], np.float64).reshape(-1) for key in ("low", "high"))
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"{META} action_space: expected a serialised space, got {error!r:.80}") from error
    bounded = low.shape == high.shape and bool(np.isfinite(high - low).all() and (low < high).all())
    # actions in [-1, 1] stay the values they are
    return _Facts(spec, low, high) if bounded and ((low != -1) | (high != 1)).any() else _Facts(spec)


def open_reader(
    path: Path,
    *,
    alignment: str = "departure",
    image_key: str = "",
    low: str = "",
    high: str = "",
    action_repeat: int = 0,
    task: str = "",
) -> MinariReader:
    """Read the data set at `path` (with or without its folder `data`); raises FormatError, OSError.

    alignment: departure as Minari has it, or arrival: action t led to observation t, and the last observation, which no
    action led to, is left out. image_key: of a Dict observation, as camera or camera/rgb; may be left out where one is
    uint8 images. low, high: bounds of the stored actions, else those of the action space.
    """
    folder = _data_folder(path)
    facts = _facts_of(read_json(folder, META) if (folder / META).exists() else {})
    given = {"alignment": alignment, "low": low, "high": high}
    convention = Convention.parse(**given, action_repeat=action_repeat, stored=facts.spec)
    if convention.low is None and facts.low is not None:
        convention = replace(convention, low=facts.low, high=facts.high)
    return MinariReader(folder, facts, convention, image_key=image_key, task=task or path.resolve().name)


def _data_folder(path: Path) -> Path:
    if not path.is_dir():
        raise FormatError(f"{path}: expected a folder of a Minari data set, got none")
    return path if (path / FILE).exists() else inside(path, Path("data"))


def open_writer(path: Path, spec: EnvSpec) -> MinariWriter:
    """Write a new data set at `path`; raises FormatError, OSError."""
    (path / "data").mkdir(parents=True, exist_ok=True)
    return MinariWriter(path / "data", spec)
