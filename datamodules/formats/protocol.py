"""What every format of recorded trajectories offers; a format is a module of this folder named as its URI scheme.

Each such module has `open_reader(path, **options) -> Reader` and, where it can be written,
`open_writer(path, spec, **options) -> Writer`. Heavy libraries are imported inside these functions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec


class FormatError(ValueError):
    """A data set that cannot be read or written at all; names what was expected and what was found."""


class HostileFile(FormatError):
    """A file that is refused before its content is touched: names the file, the limit and what it asks for."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or an episode that is left out of a scan, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        """Name and reason, and no name twice."""
        return self.reason if self.reason.startswith(self.name) else f"{self.name}: {self.reason}"


def in_short(reasons: Sequence[str]) -> str:
    """The first reason, and how many there are beside it: what is wrong with one file is mostly wrong with all."""
    more = len(reasons) - 1
    return (reasons[0] if reasons else "there is none") + (f" (and {more} more)" if more > 0 else "")


class Reader(Protocol):
    """Recorded episodes, streamed one at a time: a data set may be larger than memory.

    spec: what the frames and actions are (episode_steps: the longest episode's). problems: what was left out so far;
    a bad file is added here and never stops a scan.
    """

    spec: EnvSpec
    problems: list[Problem]

    def __len__(self) -> int:
        """Episodes that the data set claims to hold, the bad ones included."""

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode, in a fixed order; can be called again."""

    def close(self) -> None:
        """Free files."""


class Writer(Protocol):
    """Takes episodes one at a time; what was written before a crash stays readable."""

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode; raises TrajectoryInvalid, OSError."""

    def close(self) -> None:
        """Finish the data set."""
