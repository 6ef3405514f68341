"""What starts the runs of a sweep: the one thing that differs between this machine and a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to start.

    Args:
        name: of the run.
        arguments: of `python -m trainers.fit`.
        log: file that all the run says is appended to.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path


class StartedJob(Protocol):
    """A run that was handed to a launcher."""

    def poll(self) -> int | None:
        """The exit code, negative for the signal that ended it, or None while it waits or runs."""
        ...

    def stop(self) -> None:
        """Ask it to save and end, as SIGTERM does; it is polled until it has."""
        ...

    def kill(self) -> None:
        """End it at once, with all that it started."""
        ...


class Launcher(Protocol):
    """Starts jobs that share this launcher's file system.

    A launcher is a file in trainers/sweeping/launchers with `make(*, runs, jobs, devices, accelerator)`, named by
    `launcher=NAME`: how many runs there are, how many may run at once (None: as many as fit), devices of each run, and
    what it computes on, "cpu" or "gpu".
    """

    @property
    def slots(self) -> int:
        """Jobs that may be started and not ended at one time."""
        ...

    def start(self, job: Job) -> StartedJob:
        """Start a job and return at once; called while fewer than `slots` are under way."""
        ...

    def describe(self) -> str:
        """Where runs are started, in a few words for a person."""
        ...
