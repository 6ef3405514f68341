"""Where things are in a run folder, and the lock that keeps a second run out of it."""

import fcntl
import os
from datetime import datetime
from pathlib import Path

from datamodules.storage.durable import write_atomic
from datamodules.storage.shards import shard_folder
from worldmodel.errors import UserError


class RunFolderInUse(UserError):
    """Another process trains in this folder."""


class RunFolderReadOnly(UserError):
    """The run folder cannot be written."""


def step_name(progress: int) -> str:
    """Name of a checkpoint's folder."""
    return f"step_{progress:010d}"


class RunPaths:
    """The parts of one run folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, root / "config.yaml"  # the resolved configuration
        self.checkpoints, self.videos = root / "checkpoints", root / "videos"  # films and pictures
        self.replay = root / "replay"  # the ranks' shards
        self.faults = root / "faults.log"  # of environments, with the tracebacks of their own code
        self.heartbeats = root / ".ranks"  # files by which ranks show that they live

    def shard(self, rank: int, *, generation: int = 0) -> Path:
        """Folder of a rank's replay shard."""
        return shard_folder(self.replay, rank, generation=generation)

    def checkpoint(self, progress: int) -> Path:
        """A checkpoint's folder, by updates plus env_steps (updates alone where nothing is collected).

        The sum grows with either, so that names order by progress, not by the clock.
        """
        return self.checkpoints / step_name(progress)

    def create(self) -> None:
        """Make the folder and its parents; raises RunFolderReadOnly."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable_{os.getpid()}"  # several ranks look at once
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise RunFolderReadOnly(
                f"run_dir: expected a folder that can be written, got {self.root} ({error})"
            ) from error

    def keep_config(self) -> None:
        """Put the configuration that a resumed run had so far beside it, as config_0.yaml, config_1.yaml and so on."""
        if self.config.exists():
            number = len(list(self.root.glob("config_*.yaml")))
            write_atomic(self.root / f"config_{number}.yaml", self.config.read_bytes())

    def lock(self) -> int:
        """Hold the folder until the process ends, however it ends; raises RunFolderInUse."""
        handle = hold(self.root)
        if handle is None:
            raise RunFolderInUse(f"run_dir: another process trains in {self.root}")
        return handle


def in_use(root: Path) -> bool:
    """Whether a process trains in a run folder."""
    try:
        handle = hold(root, create=False)
    except OSError:
        return False
    if handle is not None:
        os.close(handle)
    return handle is None


def hold(folder: Path, *, create: bool = True) -> int | None:
    """A folder's lock, which is held until the descriptor is closed; None where another process has it.

    Raises OSError where the lock cannot be opened.
    """
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def record_fault(paths: RunPaths, line: str, trace: str) -> None:
    """Append what went wrong in an environment, with the traceback of its own code, to the run's faults.log."""
    with paths.faults.open("a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n{trace}")
