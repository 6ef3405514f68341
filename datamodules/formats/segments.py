"""This project's own segment folders: what training records, and what every other format is imported into."""

from collections.abc import Iterator
from pathlib import Path

from datamodules.formats.guard import inside
from datamodules.formats.protocol import FormatError, Notes, Problem
from datamodules.recorded import Recorded
from datamodules.storage.rows import ReplayMismatch
from datamodules.storage.segment_writer import SegmentWriter
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec


def open_reader(path: Path) -> "SegmentsReader":
    """Read a segment folder, or all `rank_*` folders in it; raises FormatError, HostileFile, OSError."""
    for file in path.rglob("*"):
        inside(path, file.relative_to(path))
    try:
        return SegmentsReader(Recorded(path, damage_limit=1.0))  # whoever reads is told what is left out
    except ReplayMismatch as error:
        raise FormatError(f"{path}: {error}") from error


def open_writer(path: Path, spec: EnvSpec) -> SegmentWriter:
    """Append to the segment folder at `path`, new or of the same spec; raises FormatError, OSError."""
    try:
        return SegmentWriter(path, spec)
    except ReplayMismatch as error:
        raise FormatError(f"{path}: {error}") from error


class SegmentsReader:
    """The episodes of segment folders in the order of recording; damaged blocks are one problem in all."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self.spec, self.notes = recorded.spec, Notes()
        damaged, lost = recorded.damaged_blocks, recorded.lost_rows
        folders = ", ".join(str(folder) for folder in recorded.folders)
        self.problems = [Problem(folders, f"{damaged} damaged blocks with {lost} rows are left out")] if damaged else []

    def __len__(self) -> int:
        return self._recorded.episodes

    def trajectories(self) -> Iterator[Trajectory]:
        """Every episode, one at a time in memory; an episode that lost rows comes as its pieces."""
        return self._recorded.trajectories()

    def close(self) -> None:
        self._recorded.close()
