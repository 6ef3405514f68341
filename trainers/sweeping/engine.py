"""What starts the runs of a sweep: the one thing that differs between this machine and a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class JobLost(Exception):
    """What a job ran on is gone; the run's folder, which is shared, has what it saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to start."""

    name: str
    folder: Path  # of the run
    overrides: tuple[str, ...]  # of configs/fit.yaml
    log: Path  # that all the run says is appended to

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of `python -m trainers.fit`: what has begun is resumed with its own configuration."""
        begun = (self.folder / "config.yaml").exists()
        return (f"resume={self.folder}",) if begun else (*self.overrides, f"run_dir={self.folder}")


class StartedJob(Protocol):
    """A run that was handed to an engine."""

    def poll(self) -> int | None:
        """The exit code, negative for the signal that ended it, or None while it waits or runs; raises JobLost."""
        ...

    def stop(self) -> None:
        """Ask it to save and end, as SIGTERM does; it is polled until it has."""
        ...

    def kill(self) -> None:
        """End it at once, with all that it started."""
        ...


class Engine(Protocol):
    """Starts jobs that share this process's file system.

    An engine is a file in trainers/sweeping/engines with `make(*, runs, jobs, devices, accelerator, **options)`, named
    by `engine=NAME`: how many runs there are, how many may run at once (None: as many as fit), devices of each run,
    what it computes on, "cpu" or "gpu", and what `engine.OPTION=` says.
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
