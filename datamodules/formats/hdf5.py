"""HDF5 files, or folders of them, in either layout of hdf5_layouts.py."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.formats import h5
from datamodules.formats.assemble import Assembler
from datamodules.formats.convention import BY_LAYOUT, RowOptions
from datamodules.formats.episode_reader import FAILURES, EpisodeReader
from datamodules.formats.episode_writer import EpisodeWriter
from datamodules.formats.guard import files_at
from datamodules.formats.hdf5_layouts import Episode, Groups, Table, demos_of, stored_spec, write_episode, write_spec
from datamodules.formats.observed import require_same_spec, select, with_task
from datamodules.formats.protocol import FormatError, Problem, in_short
from datamodules.storage.durable import sync
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

_ALIGNMENT = {Groups: "departure", Table: "arrival"}  # of a layout where no option says another


class Hdf5Reader(EpisodeReader):
    """Reads the file at `path`, or the folder's .hdf5 and .h5 files in the order of their names, each open meanwhile.

    Args:
        path: of the file or folder.
        options: how rows are stored, by default by departure in groups and by arrival in tables.
        image_key: the frames, several as a,b for channels side by side; "": the only ones.
        observe: images and vectors that are read by name, as a,b or name:key; "": as a writer left them, or frames
            alone.

    Raises:
        FormatError: where nothing can be read. OSError.
    """

    def __init__(self, path: Path, *, options: RowOptions = BY_LAYOUT, image_key: str = "", observe: str = "") -> None:
        root, files, problems = files_at(path, [".hdf5", ".h5"])
        # a wrong option is no file's fault; what only one layout takes is that layout's to refuse
        checked = replace(options, alignment=options.alignment or "departure").convention()
        super().__init__(problems, Assembler(checked))  # whose notes are those of the layouts' own assemblers
        self._root, self._files, self._options = root, files, options
        self._image_key, self._observe = image_key, observe
        self._stored: EnvSpec | None = None
        self._assemblers: dict[type, Assembler] = {}
        self._rows = 0  # of the longest episode
        first = self._survey()
        if self._stored is not None and not observe:
            self.spec = with_task(self._stored, options.task)
        else:
            name = options.task or (files[0].stem if len(files) == 1 else root.name)
            self.spec = next(iter(self._assemblers.values())).spec_of(first, task=name, rows=self._rows)

    def _survey(self) -> Trajectory:
        """Count episodes and their rows; returns the first readable one, raises FormatError where there is none."""
        first, unreadable = None, []
        for episode in self._opened():
            self._count, self._rows = self._count + 1, max(self._rows, episode.rows)
            try:
                first = first or episode.read()
            except FAILURES as error:
                unreadable.append(Problem(episode.name, str(error)))
        self._count += len(self.problems) - len(self._left_out)
        self.problems += unreadable
        if first is None:
            reasons = in_short([problem.reason for problem in self.problems])
            raise FormatError(f"{self._root}: expected a readable HDF5 episode, got none: {reasons}")
        return first

    def _opened(self) -> Iterator[Episode]:
        """The episodes file by file, each while its file is open; a file that cannot be read is a problem."""
        for path in self._files:
            try:
                with h5.open_file(self._root, path) as file:
                    yield from self._layout(file, str(path)).episodes()
            except FAILURES as error:
                self._leave_out(str(path), error)

    def _episodes(self) -> Iterator[tuple[str, Callable[[], Trajectory]]]:
        return ((episode.name, episode.read) for episode in self._opened())

    def _layout(self, file: Any, name: str) -> Groups | Table:
        if self._stored is None:
            self._stored = stored_spec(file, name)
        kind = Groups if "data" in h5.names(file, name) else Table
        if kind not in self._assemblers:
            options = replace(self._options, alignment=self._options.alignment or _ALIGNMENT[kind])
            assembler = self._assemblers[kind] = Assembler(options.convention(self._stored))
            assembler.notes = self.notes
        selection = select(self._image_key, self._observe, self._stored)
        return kind(file, name, selection, self._options.terminal_key, self._assemblers[kind])


class Hdf5Writer(EpisodeWriter):
    """Writes a file of robomimic's layout, or adds to ours of the same spec; it is closed and whole between episodes.

    HDF5 keeps no journal: a crash during `write` may cost what is in the file. Raises FormatError, OSError.
    """

    def __init__(self, path: Path, spec: EnvSpec) -> None:
        import h5py

        super().__init__(spec)
        self._path, self._count = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with h5py.File(path, "w") as file:
                write_spec(file, spec)
            sync(path.parent)
            return
        with h5.open_file(path.resolve().parent, Path(path.resolve().name)) as file:
            stored = stored_spec(file, path.name)
            if stored is None:
                raise FormatError(f"{path}: expected a file that this program wrote, got one without its spec")
            require_same_spec(stored, spec, str(path))
            self._count = len(demos_of(file, path.name))

    def _write(self, trajectory: Trajectory) -> None:
        import h5py

        with h5py.File(self._path, "a") as file:
            write_episode(file, self._count, trajectory)
        sync(self._path)
        self._count += 1


open_reader, open_writer = Hdf5Reader, Hdf5Writer
