"""Where things are in a run folder, and the lock that keeps a second run out of it."""

import fcntl
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


class RunFolderInUse(RuntimeError):
    """Another process trains in this folder."""


class RunFolderReadOnly(RuntimeError):
    """The run folder cannot be written."""


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The parts of one run folder."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def videos(self) -> Path:
        """Folder of films and pictures."""
        return self.root / "videos"

    @property
    def faults(self) -> Path:
        """What went wrong in environments, with the tracebacks of their own code."""
        return self.root / "faults.log"

    def replay(self, rank: int) -> Path:
        """Folder of a rank's replay shard."""
        return self.root / "replay" / f"rank_{rank:02d}"

    def checkpoint(self, progress: int) -> Path:
        """A checkpoint's folder; names order by progress, not by the clock."""
        return self.checkpoints / f"step_{progress:010d}"

    def create(self) -> bool:
        """Make the folder and its parts; whether it was not there before. Raises RunFolderReadOnly."""
        fresh = not self.root.exists()
        try:
            for folder in (self.root, self.checkpoints, self.videos):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise RunFolderReadOnly(
                f"run_dir: expected a folder that can be written, got {self.root} ({error})"
            ) from error
        return fresh

    def lock(self) -> int:
        """Hold the folder until the process ends, however it ends; raises RunFolderInUse."""
        handle = os.open(self.root / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise RunFolderInUse(f"run_dir: another process trains in {self.root}") from error
        return handle


def record_fault(paths: RunPaths, line: str, trace: str) -> None:
    """Append what went wrong in an environment, with the traceback of its own code, to the run's faults.log."""
    with paths.faults.open("a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n{trace}")
