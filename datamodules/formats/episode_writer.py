"""What the writers of all formats have in common: one checked episode after the other."""

from abc import ABC, abstractmethod
from pathlib import Path

from datamodules.formats.protocol import FormatError
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec


class EpisodeWriter(ABC):
    """Writes episodes one by one; see Writer. A format says in `_write` how one is stored.

    Args:
        spec: of the episodes.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._spec = spec

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode, durable on return; raises TrajectoryInvalid, FormatError, OSError."""
        trajectory.check()
        trajectory.require(self._spec)
        self._write(trajectory)

    @abstractmethod
    def _write(self, trajectory: Trajectory) -> None:
        """Store an episode of the spec."""

    def close(self) -> None:  # noqa: B027, most formats keep nothing open
        """Every episode is already on disk."""


def require_empty(folder: Path) -> None:
    """Raise FormatError where a folder has files."""
    if folder.exists() and any(folder.iterdir()):
        raise FormatError(f"{folder}: expected an empty folder or none, got one with files")


def require_actions(path: Path, spec: EnvSpec) -> None:
    """Raise FormatError for an environment without actions, of which a table has no column."""
    if not spec.action_dim:
        raise FormatError(f"{path}: expected an action dimension at least, got none: npz, hdf5 and segments hold it")
