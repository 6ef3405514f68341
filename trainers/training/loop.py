"""What training loops share: updates within Lightning, evaluations, rows of metrics, checkpoints, a clean stop."""

import hashlib
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.data_module import WindowDataModule
from trainers.acting.drawn_episode import drawn_episode
from trainers.acting.evaluation import Evaluation, Evaluator
from trainers.acting.pictures import write_pictures
from trainers.process.clock import Clock, resident_mb
from trainers.process.distributed import (
    broadcast_from_rank_zero,
    gather_over_ranks,
    mean_metrics,
    rank_seed,
    sum_over_ranks,
)
from trainers.process.interrupt import Interrupted
from trainers.run_folder.checkpoint import prune
from trainers.run_folder.loggers import log_films
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.records import write_records
from trainers.training.module import WorldModelModule
from trainers.training.rank_comparison import RankComparison
from trainers.training.run_context import RunContext
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec


class RanksDiverged(RuntimeError):
    """Ranks that must hold the same weights do not."""


class TrainingLoop(pl.Callback):
    """A training algorithm as a generator of batches: Lightning makes one update with every batch it yields.

    A subclass writes the algorithm top to bottom in `algorithm`, names the counter that its curves are drawn over
    (`axis`), and says what of its own state a checkpoint holds. What stands between two yields happens between two
    updates, on all ranks alike.

    Args:
        run: what the run's parts share.
        module: makes the updates.
        data: gives the batches.
        spec: of the environment, or of the recorded one.
        evaluator: plays episodes of the task, None where there is none.
        renderer: what draws the frames.
    """

    axis: str

    def __init__(
        self,
        run: RunContext,
        module: WorldModelModule,
        data: WindowDataModule,
        *,
        spec: EnvSpec,
        evaluator: Evaluator | None,
        renderer: str = "none",
    ) -> None:
        self.run, self.module, self.data = run, module, data
        self.spec, self.evaluator, self.renderer = spec, evaluator, renderer
        self.options = run.config["evaluation"]
        self.updates_due, self.updates_done = 0.0, 0
        self.next_evaluation = self.options["every"]
        self.final_returns: list[float] | None = None
        self._resumed: dict[str, Any] | None = None
        self._saved: tuple[Any, ...] | None = None
        self.ranks = RankComparison(run, module)
        data.batches = self._batches()

    @property
    def state_key(self) -> str:
        """The loop's key in a checkpoint, whatever kind of run it is."""
        return "loop"

    # --- what a subclass says -------------------------------------------------------------------------------------

    @abstractmethod
    def algorithm(self) -> Iterator[Batch]:
        """The whole run from here to its end; raises Interrupted where it is broken off."""

    @property
    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Counters over all ranks, written on every row: env_steps is one of them."""

    @abstractmethod
    def restore_counters(self, counters: dict[str, int]) -> None:
        """Take the counters of a checkpoint."""

    def rows_to_learn_from(self) -> int:
        """Rows that batches can come from, over all ranks; called on all of them. Here every rank reads all of them."""
        return self.data.rows

    @abstractmethod
    def rank_state(self) -> dict[str, Any]:
        """This rank's state beside random numbers; called on all ranks."""

    @abstractmethod
    def restore(self, rank: dict[str, Any]) -> None:
        """Continue from this rank's state."""

    @abstractmethod
    def deal_state(self, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """This rank's state, made of the states of another number of ranks."""

    @property
    def finished(self) -> bool:
        """Whether the run came to the end that its configuration sets."""
        return bool(self.final_returns)

    def results(self) -> dict[str, Any]:
        """What the subclass adds to the results of a run."""
        return {}

    def stop_collecting(self) -> None:
        """Break off what is played beside the updates: a checkpoint is about to be written where the run stops."""

    # --- updates --------------------------------------------------------------------------------------------------

    def _batches(self) -> Generator[Batch]:
        """What Lightning pulls from: begin or continue, follow the algorithm, stop."""
        self.run.interrupt.claim()  # Lightning's own handler would call a collective from within a signal
        self.module.clock.begin()
        if self.run.heartbeat is not None:
            self.run.heartbeat.progress = lambda: (self.module.clock.booked_at, self.run.interrupt.asked)
        if self._resumed is not None:
            self._continue(self._resumed)
        else:
            # the ranks were given the same weights, which they need, and with them the same noise
            torch.manual_seed(rank_seed(torch.initial_seed(), self.run.rank))
        self.ranks.begin()
        if self.run.trainer.is_global_zero:  # nothing can refuse the run any more
            device, renderer = self.run.device_name, self.renderer
            agent = self.run.config["agent"]
            if "continuation" in agent:  # what was decided, so that the weights fit whatever another environment says
                agent["continuation"] = self.module.agent.continuation is not None
            write_records(self.run.paths, self.run.config, self.spec, device=device, renderer=renderer)
        try:
            yield from self.algorithm()
        except Interrupted:
            self.run.interrupt.requested(sum_over_ranks)  # so that all know which signal it was
            # what began after the last checkpoint is not saved: it is there that the run continues
            self._saved = self._position_of_save()
            self.run.progress.print(f"stopped; python -m trainers.fit resume={self.run.paths.root} continues")
        self.run.trainer.should_stop = True

    def learn(self) -> Iterator[Batch]:
        """The batches of the updates that are due; raises Interrupted after saving where a signal asks to stop."""
        self.run.progress.update(phase="learn")
        self.stop_if_asked()
        if self.ranks.due() and (warning := self.ranks.warning()):
            self.run.progress.print(warning)
        rows = self.rows_to_learn_from()  # they come and go between rounds of updates alone
        if self.updates_due >= 1:
            self.module.count_rows(rows)
        while self.updates_due >= 1:
            with self.module.clock.measure("wait"):
                batch = self.data.next_batch()
            with self.module.clock.measure("update"):
                if self.updates_due >= 2:
                    self.data.prepare()  # it will be needed before anything else happens
                yield batch
            self.stop_if_asked()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: WorldModelModule, outputs: dict[str, Any], batch: Batch, batch_idx: int
    ) -> None:
        """One update less is due; the sampler is told the error of the batch."""
        self.data.feedback(batch, outputs["error"])
        self.ranks.keep(batch)
        self.updates_due -= 1
        self.updates_done = module.updates
        self.run.progress.update(updates=module.updates)

    def on_train_end(self, trainer: pl.Trainer, module: WorldModelModule) -> None:  # type: ignore[override]
        """Save where a flag of Lightning's ended the run, and make sure that all ranks learned the same weights."""
        self.data.batches.close()
        self.save()
        prints = gather_over_ranks(fingerprint(module))
        if self.run.heartbeat is not None:
            self.run.heartbeat.stop_watching()
        if len(set(prints)) > 1:
            raise RanksDiverged(f"weights and statistics: expected the same on all ranks, got SHA-256 {prints}")

    def stop_if_asked(self) -> None:
        """Save and raise Interrupted on all ranks where a signal asked one of them to stop."""
        if self.run.interrupt.requested(sum_over_ranks):
            self.stop_collecting()
            self.save()
            raise Interrupted

    # --- what a person sees ---------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Where the run stands on its axis."""
        return self.updates_done if self.axis == "updates" else self.counters[self.axis]

    def evaluate_if_due(self) -> None:
        """Evaluate where the axis has passed the next evaluation; raises Interrupted where a signal asks to stop."""
        if self.evaluator is not None and self.position >= self.next_evaluation:
            self.evaluate(self.options["episodes"], final=False)

    def evaluate(self, episodes: int, *, final: bool) -> None:
        """Evaluate, ranks by turns; whether and when has no influence on the learning.

        Args:
            episodes: how many.
            final: whether these are the run's result.

        Raises:
            Interrupted: on all ranks, after saving, where a signal asks to stop.
        """
        self.run.progress.update(phase="evaluate")
        played, evaluation = True, None
        if episodes and self.evaluator is not None:
            stop = self.run.interrupt.is_set
            with self.measuring() as clock, suppress(Interrupted):
                evaluation = self.evaluator.run(
                    self.module.agent, episodes=episodes, clock=clock, should_stop=stop, over_ranks=True
                )
            played = evaluation is not None
        if played:
            every = self.options["every"]
            self.next_evaluation = (self.position // every + 1) * every
        if evaluation is not None:
            self.final_returns = evaluation.returns if final else self.final_returns
            self.log_row(evaluation.metrics if self.run.trainer.is_global_zero else {})
            if self.run.trainer.is_global_zero:
                self._film(evaluation, name="final" if final else f"{self.position:09d}")
        self.stop_if_asked()

    def evaluate_finally(self) -> None:
        """The evaluation whose returns are the run's result, unless a run that is continued has it already."""
        if self.evaluator is not None and self.final_returns is None:
            self.evaluate(self.options["final_episodes"], final=True)

    @contextmanager
    def measuring(self) -> Iterator[Clock]:
        """The agent is judged, not taught: what is drawn within changes nothing outside, and the time is booked."""
        module = self.module
        module.eval()
        devices = [module.device] if module.device.type == "cuda" else []
        with module.clock.measure("evaluation"), torch.random.fork_rng(devices=devices):
            yield module.clock
        module.train()

    def _film(self, evaluation: Evaluation, *, name: str) -> None:
        self.run.progress.update(eval_return=evaluation.return_mean)
        with self.measuring():
            where, agent = self.run.paths.videos, self.module.agent
            drawn = drawn_episode(self.run.config, evaluation, gpu=self.run.gpu) if name == "final" else None
            pictures = write_pictures(where, agent, evaluation, self.spec, name=name, drawn=drawn)
        log_films(self.run.trainer.loggers, pictures, axis=self.axis, position=self.position)

    def log_row(self, metrics: dict[str, float]) -> None:
        """One row: counters, means over the updates since the last row, times and `metrics`; called on all ranks."""
        module = self.module
        means = mean_metrics({**module.drain_metrics(), **metrics})
        row = {**self.counters, "updates": module.updates, "seconds": module.clock.total}
        row |= {**means, **module.clock.split(), "skipped_updates": module.skipped}
        row["memory/resident_mb"] = resident_mb()
        for logger in self.run.trainer.loggers:
            logger.log_metrics(row, step=self.position)

    # --- saving and resuming --------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Write a checkpoint unless nothing happened since the last one, and say which; all episodes must be closed."""
        position = self._position_of_save()
        if position == self._saved:
            return False
        self.data.put_back()
        # where env_steps stand still, updates alone name a checkpoint
        collected = 0 if self.axis == "updates" else self.counters["env_steps"]
        self.run.trainer.save_checkpoint(self.run.paths.checkpoint(self.module.updates + collected))
        self._saved = position
        if self.run.trainer.is_global_zero:
            prune(self.run.paths.checkpoints, keep=self.run.config["checkpoint"]["keep"])
        return True

    def _position_of_save(self) -> tuple[Any, ...]:
        return self.module.updates, self.counters["env_steps"], self.next_evaluation, self.final_returns

    def state_dict(self) -> dict[str, Any]:
        """Counters, and every rank's own state and random numbers; called on all ranks."""
        rank = {
            **self.rank_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        return {
            "counters": self.counters,
            "updates_due": self.updates_due,
            "next_evaluation": self.next_evaluation,
            "updates": self.updates_done,
            "final_returns": self.final_returns,
            "generation": self.run.generation,
            "ranks": gather_over_ranks(rank),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters, and keep the rest until training starts: only then is the trainer's state restored."""
        self._resumed = state_dict
        self.restore_counters(state_dict["counters"])
        self.updates_due, self.next_evaluation = state_dict["updates_due"], state_dict["next_evaluation"]
        self.updates_done, self.final_returns = state_dict["updates"], state_dict["final_returns"]

    def _continue(self, state: dict[str, Any]) -> None:
        trainer = self.run.trainer
        self._saved = self._position_of_save()
        former = self.run.former_ranks
        rank = self.deal_state(former) if former else state["ranks"][trainer.global_rank]
        self.restore(rank)
        for logger in trainer.loggers:
            if isinstance(logger, CSVMetrics):  # rows after the checkpoint will be written again
                logger.rewind(updates=state["updates"], env_steps=self.counters["env_steps"])
        if former:
            torch.manual_seed(rank_seed(self.run.config["seed"], self.run.rank, generation=self.run.generation))
            return
        torch.set_rng_state(rank["torch_rng"])
        if rank["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(rank["cuda_rng"])


def fit_normalisers(module: WorldModelModule, rows: Batch) -> None:
    """Measure what is observed at the run's beginning; all ranks take rank 0's statistics."""
    module.agent.norm.fit({name: part.flatten(0, 1) for name, part in rows.observation.items()})
    for buffer in module.agent.norm.buffers():
        broadcast_from_rank_zero(buffer)


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of all weights and of what is measured as they are learned."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
