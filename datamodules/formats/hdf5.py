"""HDF5 files, or folders of them, in either layout of hdf5_layouts.py."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.formats import h5
from datamodules.formats.assemble import BY_LAYOUT, Assembler, RowOptions
from datamodules.formats.guard import files_at
from datamodules.formats.hdf5_layouts import Episode, Groups, Table, layout_of, stored_spec, write_episode, write_spec
from datamodules.formats.observed import names_of, require_spec, with_task
from datamodules.formats.protocol import FormatError, Notes, Problem, in_short
from datamodules.storage.durable import sync_folder
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

_FAILURES = (FormatError, TrajectoryInvalid, OSError, MemoryError)


def open_reader(path: Path, *, options: RowOptions = BY_LAYOUT, image_key: str = "", observe: str = "") -> "Hdf5Reader":
    """Read the file at `path`, or the folder's .hdf5 and .h5 files; episodes are read one by one.

    Args:
        path: of the file or folder.
        options: how rows are stored, by default by departure in groups and by arrival in tables.
        image_key: the frames, several as a,b for channels side by side; "": the only ones.
        observe: images and vectors that are read by name, as a,b; "": as a writer left them, or frames alone.

    Raises:
        FormatError: where nothing can be read. OSError.
    """
    root, files, problems = files_at(path, [".hdf5", ".h5"])
    replace(options, alignment=options.alignment or "arrival").convention()  # a wrong option is no file's fault
    return Hdf5Reader(root, files, problems, options, image_key=image_key, observe=observe)


def open_writer(path: Path, spec: EnvSpec) -> "Hdf5Writer":
    """Write a file of robomimic's layout, or add to ours of the same spec; raises FormatError, OSError."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    if path.exists():
        with h5.open_file(path.resolve().parent, Path(path.resolve().name)) as file:
            stored = stored_spec(file, path.name)
            if stored is None or not stored.agrees(spec):
                raise FormatError(f"{path}: expected a file of our own with spec {spec}, got {stored}")
            count = len(layout_of(file, path.name, image_key="", terminal_key="").episodes())
    else:
        with h5py.File(path, "w") as file:
            write_spec(file, spec)
        sync_folder(path.parent)
    return Hdf5Writer(path, spec, count)


class Hdf5Reader:
    """The episodes of files in the order of their names; a file is open while it is read."""

    spec: EnvSpec

    def __init__(
        self,
        root: Path,
        files: list[Path],
        problems: list[Problem],
        options: RowOptions,
        *,
        image_key: str,
        observe: str,
    ) -> None:
        self._root, self._files, self._left_out = root, files, problems
        self._options, self._image_key, self._observe = options, image_key, observe
        self.problems, self.notes = list(problems), Notes()
        self._count, longest = len(problems), 0
        self._stored: EnvSpec | None = None
        self._assemblers: dict[type, Assembler] = {}
        first: tuple[Trajectory, Assembler] | None = None
        for path in files:
            try:
                rows, shown = self._survey(path, wanted=first is None)
            except _FAILURES as error:
                self._count += 1
                self.problems.append(Problem(str(path), str(error)))
                continue
            self._count, longest, first = self._count + len(rows), max(longest, *rows, 0), first or shown
        if first is None:
            reasons = in_short([problem.reason for problem in self.problems])
            raise FormatError(f"{root}: expected a readable HDF5 episode, got none: {reasons}")
        if self._stored is not None and not observe:
            self.spec = with_task(self._stored, options.task)
        else:
            name = options.task or (files[0].stem if len(files) == 1 else root.name)
            self.spec = first[1].spec(first[0], task=name, rows=longest)

    def _survey(self, path: Path, *, wanted: bool) -> tuple[list[int], tuple[Trajectory, Assembler] | None]:
        """The rows of every episode of a file and, if wanted, its first readable one."""
        with h5.open_file(self._root, path) as file:
            assembler, episodes = self._episodes(file, path)
            rows = [episode.rows for episode in episodes]
            for episode in episodes if wanted else ():
                try:
                    return rows, (episode.read(assembler), assembler)
                except _FAILURES as error:
                    self.problems.append(Problem(episode.name, str(error)))
        return rows, None

    def _episodes(self, file: Any, path: Path) -> tuple[Assembler, list[Episode]]:
        terminal_key = self._options.terminal_key
        if self._stored is None:
            self._stored = stored_spec(file, str(path))
        names = [] if self._image_key else names_of(self._observe, self._stored)
        keys = {"image_key": self._image_key, "terminal_key": terminal_key}
        layout = layout_of(file, str(path), **keys, names=names)
        return self._assembler(layout), layout.episodes()

    def _assembler(self, layout: Groups | Table) -> Assembler:
        if type(layout) not in self._assemblers:
            options = replace(self._options, alignment=self._options.alignment or layout.ALIGNMENT)
            assembler = self._assemblers[type(layout)] = Assembler(options.convention(self._stored))
            assembler.notes = self.notes
        return self._assemblers[type(layout)]

    def __len__(self) -> int:
        return self._count

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode; afterwards `problems` names the others."""
        self.problems[:] = self._left_out
        self.notes.clear()
        for path in self._files:
            try:
                with h5.open_file(self._root, path) as file:
                    yield from self._of_file(file, path)
            except _FAILURES as error:
                self.problems.append(Problem(str(path), str(error)))

    def _of_file(self, file: Any, path: Path) -> Iterator[Trajectory]:
        assembler, episodes = self._episodes(file, path)
        for episode in episodes:
            try:
                trajectory = episode.read(assembler)
                require_spec(self.spec, trajectory)
            except _FAILURES as error:
                self.problems.append(Problem(episode.name, str(error) or type(error).__name__))
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
            write_episode(file, self._count, trajectory)
        fd = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._count += 1

    def close(self) -> None:
        """The file is closed between episodes."""
