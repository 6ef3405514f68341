"""What every format of recorded trajectories offers; a format is a module of this folder named as its URI scheme.

Each such module has `open_reader(path, **options) -> Reader` and, where it can be written,
`open_writer(path, spec, **options) -> Writer`. Options are keyword-only, and their defaults give their types; a default
that is a dataclass (RowOptions) stands for its fields. Heavy libraries are imported inside these functions. What all
readers do alike, `episode_reader.EpisodeReader` does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, runtime_checkable

from datamodules.trajectory import Trajectory
from worldmodel.errors import UserError
from worldmodel.spec import EnvSpec

_MOST_NOTES, _MOST_DETAIL = 40, 300


class FormatError(UserError, ValueError):
    """A data set that cannot be read or written at all; names what was expected and what was found."""


class HostileFile(FormatError):
    """A file that is refused before its content is touched: names the file, the limit and what it asks for."""


@contextmanager
def reading(expected: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """What goes wrong inside becomes a FormatError that begins with what was expected; one that is typed stays so."""
    try:
        yield
    except FormatError:
        raise
    except errors as error:
        raise FormatError(f"{expected}: {error}") from error


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


class Notes:
    """What was not taken over as it lies there, counted over the episodes of one pass; may be added to by threads."""

    def __init__(self) -> None:
        self._amounts: dict[tuple[str, str], dict[str, float]] = {}
        self._lock = Lock()

    def add(self, template: str, *, detail: str = "", **amounts: float) -> None:
        """Count an episode, and add up the amounts that the template names."""
        with self._lock:
            if (template, detail) not in self._amounts and len(self._amounts) >= _MOST_NOTES:
                return
            sums = self._amounts.setdefault((template, detail[:_MOST_DETAIL]), {})
            for key, amount in {"episodes": 1, **amounts}.items():
                sums[key] = sums.get(key, 0.0) + amount

    def count(self, template: str) -> int:
        """Episodes for which this was noted."""
        return int(sum(sums["episodes"] for (other, _), sums in self._amounts.items() if other == template))

    def clear(self) -> None:
        """Begin a new pass."""
        self._amounts.clear()

    def texts(self) -> list[str]:
        """One sentence for each kind of note."""
        return [template.format(detail=detail, **sums) for (template, detail), sums in self._amounts.items()]


@runtime_checkable
class Reader(Protocol):
    """Recorded episodes, streamed one at a time: a data set may be larger than memory.

    spec: what the frames and actions are (episode_steps: the longest episode's). problems: what was left out since the
    last pass began; a bad file is added here and never stops a scan. notes: what was not taken over as it lies there.
    """

    spec: EnvSpec
    problems: list[Problem]
    notes: Notes

    def __len__(self) -> int:
        """Episodes that the data set claims to hold, the bad ones included."""

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode, in a fixed order; can be called again, which clears `problems` and `notes`.

        Returns:
            Episodes by arrival: pixels uint8 [T, C, h, w], action float32 [T, A] in [-1, 1], reward float32 [T].

        Raises:
            OSError: where the disk fails; a bad file or episode is a problem instead.
        """

    def close(self) -> None:
        """Free files."""


@runtime_checkable
class Writer(Protocol):
    """Takes episodes one at a time; what was written before a crash stays readable."""

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode by arrival, of the spec that the writer was opened with.

        Raises:
            TrajectoryInvalid, FormatError: for an episode that cannot be stored; nothing is written then.
            OSError: where the disk fails; open a new writer to go on.
        """

    def close(self) -> None:
        """Finish the data set; raises OSError."""
