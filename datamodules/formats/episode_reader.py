"""What the readers of all formats have in common: one episode after the other, and what cannot be read is left out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

from datamodules.formats.assemble import Assembler
from datamodules.formats.observed import with_task
from datamodules.formats.protocol import FormatError, Problem, in_short
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

FAILURES = (FormatError, TrajectoryInvalid, OSError, MemoryError)


class EpisodeReader(ABC):
    """Reads episodes one by one; see Reader. A format says in `_episodes` which there are, and sets `spec`.

    Args:
        left_out: what a scan of the files left out; every pass begins with it.
        assembler: makes the episodes, and notes what was not taken over as it lies there.
    """

    spec: EnvSpec
    _count = 0  # of episodes, those left out by the scan excepted

    def __init__(self, left_out: Sequence[Problem], assembler: Assembler) -> None:
        self._left_out, self.problems = list(left_out), list(left_out)
        self._assembler, self.notes = assembler, assembler.notes

    def __len__(self) -> int:
        return self._count + len(self._left_out)

    @abstractmethod
    def _episodes(self) -> Iterable[tuple[str, Callable[[], Trajectory]]]:
        """The name of every episode, and what reads it."""

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode, in a fixed order; afterwards `problems` names the others."""
        self.problems[:] = self._left_out
        self.notes.clear()
        for name, read in self._episodes():
            try:
                trajectory = read()
                trajectory.require(self.spec)
            except FAILURES as error:
                self._leave_out(name, error)
            else:
                yield trajectory

    def _leave_out(self, name: str, error: Exception) -> None:
        self.problems.append(Problem(name, str(error) or type(error).__name__))

    def _first(self, expected: str) -> Trajectory:
        """The first episode that can be read; raises FormatError that says what was expected, and why there is none."""
        reasons = [problem.reason for problem in self._left_out]
        for _, read in self._episodes():
            try:
                return read()
            except FAILURES as error:
                reasons.append(str(error))
        raise FormatError(f"{expected}, got none: {in_short(reasons)}")

    def _known_spec(
        self,
        stored: EnvSpec | None,
        *,
        expected: str,
        task: str,
        name: str,
        rows: Callable[[], int] = lambda: 0,
    ) -> EnvSpec:
        """The spec that a writer left, else what the first readable episode shows; raises FormatError for neither.

        task: that was asked for. name: of a task that nobody named. rows: of the longest episode, where files say it.
        """
        if stored is not None:
            return with_task(stored, task)
        first = self._first(expected)
        return self._assembler.spec_of(first, task=task or name, rows=max(len(first), rows()))

    def close(self) -> None:  # noqa: B027, most formats keep nothing open
        """Nothing is open between two episodes."""
