"""HDF5 files, or folders of them: a group an episode (h5_demos.py), or one table for all (h5_rows.py)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.formats import h5, h5_demos, h5_rows
from datamodules.formats.assemble import Convention, require_spec
from datamodules.formats.guard import files_at
from datamodules.formats.protocol import FormatError, Problem, in_short
from datamodules.storage.durable import sync_folder
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

_FAILURES = (FormatError, TrajectoryInvalid, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class _Options:
    """Of the URI, empty where the file's own layout decides."""

    alignment: str
    low: str
    high: str
    action_repeat: int
    image_key: str
    terminal_key: str

    def convention(self, layout: Any, stored: EnvSpec | None) -> Convention:
        bounds = {"low": self.low, "high": self.high}
        alignment = self.alignment or layout.ALIGNMENT
        return Convention.parse(alignment=alignment, action_repeat=self.action_repeat, stored=stored, **bounds)


def open_reader(
    path: Path,
    *,
    alignment: str = "",
    low: str = "",
    high: str = "",
    action_repeat: int = 0,
    task: str = "",
    image_key: str = "",
    terminal_key: str = "",
) -> "Hdf5Reader":
    """Read the file at `path`, or the folder's .hdf5 and .h5 files; episodes are read one by one.

    alignment: by default departure in groups, arrival in tables. low, high: bounds of the stored actions. image_key:
    which frames, where there are several. terminal_key: what marks termination. Raises FormatError, OSError.
    """
    root, files, problems = files_at(path, [".hdf5", ".h5"])
    options = _Options(alignment, low, high, action_repeat, image_key, terminal_key)
    options.convention(h5_rows, None)  # before the files: a wrong option is no file's fault
    return Hdf5Reader(root, files, problems, options, task=task)


def open_writer(path: Path, spec: EnvSpec) -> "Hdf5Writer":
    """Write a file of robomimic's layout, or add to ours of the same spec; raises FormatError, OSError."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    if path.exists():
        with h5.open_file(path.resolve().parent, Path(path.resolve().name)) as file:
            stored = h5_demos.stored_spec(file, path.name) if h5_demos.is_demos(file, path.name) else None
            if stored is None or not stored.agrees(spec):
                raise FormatError(f"{path}: expected a file of our own with spec {spec}, got {stored}")
            count = len(h5_demos.find_episodes(file, path.name, image_key="", terminal_key=""))
    else:
        with h5py.File(path, "w") as file:
            h5_demos.write_spec(file, spec)
        sync_folder(path.parent)
    return Hdf5Writer(path, spec, count)


class Hdf5Reader:
    """The episodes of files in the order of their names; a file is open while it is read."""

    def __init__(self, root: Path, files: list[Path], problems: list[Problem], options: _Options, *, task: str) -> None:
        self._root, self._files, self._left_out, self._options = root, files, problems, options
        self.problems = list(problems)
        self._count, longest = len(problems), 0
        self._stored: EnvSpec | None = None
        first: Trajectory | None = None
        for path in files:
            try:
                rows, found = self._survey(path, wanted=first is None)
            except _FAILURES as error:
                self._count += 1
                self.problems.append(Problem(str(path), str(error)))
                continue
            self._count, longest, first = self._count + len(rows), max(longest, *rows, 0), first or found
        if first is None:
            reasons = in_short([problem.reason for problem in self.problems])
            raise FormatError(f"{root}: expected a readable HDF5 episode, got none: {reasons}")
        self.spec = self._spec_of(first, longest, task)

    def _survey(self, path: Path, *, wanted: bool) -> tuple[list[int], Trajectory | None]:
        """The rows of every episode of a file and, if wanted, its first readable one."""
        with h5.open_file(self._root, path) as file:
            layout, episodes = self._episodes(file, path)
            rows = [count for _, count, _ in episodes]
            for label, _, read in episodes if wanted else ():
                try:
                    return rows, read(file, self._convention(layout))
                except _FAILURES as error:
                    self.problems.append(Problem(label, str(error)))
        return rows, None

    def _spec_of(self, first: Trajectory, longest: int, task: str) -> EnvSpec:
        if self._stored is not None:
            return replace(self._stored, task=task or self._stored.task)
        name = task or (self._files[0].stem if len(self._files) == 1 else self._root.name)
        repeat = self._options.action_repeat or 1
        steps = max(1, longest - 1) * repeat
        shape = first.pixels.shape[1:]
        return EnvSpec(name, {"pixels": shape}, first.action.shape[1], action_repeat=repeat, episode_steps=steps)

    def _convention(self, layout: Any) -> Convention:
        return self._options.convention(layout, self._stored)

    def _episodes(self, file: Any, path: Path) -> tuple[Any, list[tuple[str, int, Any]]]:
        keys = {"image_key": self._options.image_key, "terminal_key": self._options.terminal_key}
        layout = h5_demos if h5_demos.is_demos(file, str(path)) else h5_rows
        if layout is h5_demos and self._stored is None:
            self._stored = h5_demos.stored_spec(file, str(path))
        return layout, layout.find_episodes(file, str(path), **keys)

    def __len__(self) -> int:
        return self._count

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode; afterwards `problems` names the others."""
        self.problems[:] = self._left_out
        for path in self._files:
            try:
                with h5.open_file(self._root, path) as file:
                    yield from self._of_file(file, path)
            except _FAILURES as error:
                self.problems.append(Problem(str(path), str(error)))

    def _of_file(self, file: Any, path: Path) -> Iterator[Trajectory]:
        layout, episodes = self._episodes(file, path)
        for label, _, read in episodes:
            try:
                trajectory = read(file, self._convention(layout))
                require_spec(self.spec, trajectory)
            except _FAILURES as error:
                self.problems.append(Problem(label, str(error) or type(error).__name__))
            else:
                yield trajectory

    def close(self) -> None:
        """Files are closed where they were read."""


class Hdf5Writer:
    """Adds episodes to one file, which is closed and whole between two calls of `write`.

    HDF5 keeps no journal: a crash during a call may cost what is in the file.
    """

    def __init__(self, path: Path, spec: EnvSpec, count: int) -> None:
        self._path, self._spec, self._count = path, spec, count

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode, durable on return; raises TrajectoryInvalid, FormatError, OSError."""
        import h5py

        trajectory.check()
        require_spec(self._spec, trajectory)
        with h5py.File(self._path, "a") as file:
            h5_demos.write_episode(file, self._count, trajectory)
        fd = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._count += 1

    def close(self) -> None:
        """The file is closed between episodes."""
