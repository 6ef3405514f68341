"""When the agent of a run is evaluated, and what comes of it: a row, films, and at the end the run's result."""

from contextlib import suppress

from trainers.acting.drawn_episode import drawn_episode
from trainers.acting.evaluation import Evaluation, Evaluator
from trainers.acting.pictures import write_pictures
from trainers.process.interrupt import Interrupted
from trainers.training.module import WorldModelModule
from trainers.training.run_context import RunContext
from trainers.training.run_log import RunLog
from worldmodel.spec import EnvSpec


class Evaluations:
    """Evaluations every so often on the log's axis and at the end; they have no influence on the learning.

    evaluator: plays the episodes, ranks by turns; None where the task cannot be acted in.
    """

    def __init__(
        self, run: RunContext, module: WorldModelModule, log: RunLog, *, spec: EnvSpec, evaluator: Evaluator | None
    ) -> None:
        self._run, self._module, self._log, self._spec = run, module, log, spec
        self._evaluator, self._options = evaluator, run.config["evaluation"]
        self.next_at: int = self._options["every"]
        self.final_returns: list[float] | None = None

    @property
    def possible(self) -> bool:
        """Whether there is an environment to act in."""
        return self._evaluator is not None

    @property
    def due(self) -> bool:
        """Whether the run has come to the next one."""
        return self.possible and self._log.position >= self.next_at

    @property
    def final_due(self) -> bool:
        """Whether the final one is missing, which a run that is continued may have already."""
        return self.possible and self.final_returns is None

    def play(self, *, final: bool) -> None:
        """Evaluate on all ranks, for the run's result or on the way; broken off by a signal, it is due as before."""
        self._run.progress.update(phase="evaluate")
        episodes, every = self._options["final_episodes" if final else "episodes"], self._options["every"]
        played, evaluation = True, None
        if episodes and self._evaluator is not None:
            stop = self._run.interrupt.is_set
            with self._module.measuring() as clock, suppress(Interrupted):
                evaluation = self._evaluator.run(
                    self._module.agent, episodes=episodes, clock=clock, should_stop=stop, over_ranks=True
                )
            played = evaluation is not None
        if played:
            self.next_at = (self._log.position // every + 1) * every
        if evaluation is not None:
            self.final_returns = evaluation.returns if final else self.final_returns
            self._log.row(evaluation.metrics if self._run.trainer.is_global_zero else {})
            if self._run.trainer.is_global_zero:
                self._film(evaluation, name="final" if final else f"{self._log.position:09d}")

    def _film(self, evaluation: Evaluation, *, name: str) -> None:
        run, agent = self._run, self._module.agent
        run.progress.update(eval_return=evaluation.return_mean)
        with self._module.measuring():
            drawn = drawn_episode(run.config, evaluation, gpu=run.gpu) if name == "final" else None
            pictures = write_pictures(run.paths.videos, agent, evaluation, self._spec, name=name, drawn=drawn)
        self._log.films(pictures)
