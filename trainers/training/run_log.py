"""What a run writes down as it goes on: rows of metrics and films, into every logger that it has."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainers.process.clock import resident_mb
from trainers.process.distributed import mean_metrics
from trainers.run_folder.loggers import log_films
from trainers.run_folder.metrics import CSVMetrics
from trainers.training.module import WorldModelModule
from trainers.training.run_context import RunContext


class RunLog:
    """Rows and films over `axis`, the counter that curves are drawn over.

    counters: gives the run's counters over all ranks, of which env_steps is one.
    """

    def __init__(
        self, run: RunContext, module: WorldModelModule, *, axis: str, counters: Callable[[], Mapping[str, int]]
    ) -> None:
        self.axis = axis
        self._run, self._module, self._counters = run, module, counters

    @property
    def position(self) -> int:
        """Where the run stands on its axis."""
        return self._module.updates if self.axis == "updates" else self._counters()[self.axis]

    def row(self, metrics: Mapping[str, float]) -> None:
        """Write counters, means over the updates since the last row, times and `metrics`; called on all ranks."""
        module = self._module
        means = mean_metrics({**module.drain_metrics(), **metrics})
        row = {**self._counters(), "updates": module.updates, "seconds": module.clock.total}
        row |= {**means, **module.clock.split(), "skipped_updates": module.skipped}
        row["memory/resident_mb"] = resident_mb()
        for logger in self._run.trainer.loggers:
            logger.log_metrics(row, step=self.position)

    def films(self, pictures: Sequence[Path]) -> None:
        """Hand on films that were written at this position."""
        log_films(self._run.trainer.loggers, pictures, axis=self.axis, position=self.position)

    def rewind(self) -> None:
        """Drop the rows after this position, which a resumed run will write again."""
        for logger in self._run.trainer.loggers:
            if isinstance(logger, CSVMetrics):
                logger.rewind(updates=self._module.updates, env_steps=self._counters()["env_steps"])
