"""What training loops share: updates within Lightning, a clean stop, checkpoints; see `TrainingLoop`."""

from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.data_module import WindowDataModule
from trainers.acting.evaluation import Evaluator
from trainers.process.distributed import gather_over_ranks, rank_seed, require_same_weights, sum_over_ranks
from trainers.process.interrupt import Interrupted
from trainers.run_folder.checkpoint import prune
from trainers.run_folder.records import write_records
from trainers.training.evaluations import Evaluations
from trainers.training.graphed_gradients import record_graphs, require_recordable
from trainers.training.module import WorldModelModule
from trainers.training.rank_comparison import RankComparison
from trainers.training.run_context import RunContext
from trainers.training.run_log import RunLog
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec


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
        self.spec, self.renderer = spec, renderer
        self.run_log = RunLog(run, module, axis=self.axis, counters=lambda: self.counters)
        self.evaluations = Evaluations(run, module, self.run_log, spec=spec, evaluator=evaluator)
        if run.config["trainer"]["cuda_graphs"]:
            require_recordable(module.agent)
        self.updates_due = 0.0
        self._resumed: dict[str, Any] | None = None
        self._saved: tuple[Any, ...] | None = None
        self.ranks = RankComparison(run, module)
        data.batches = self._batches()

    @property
    def state_key(self) -> str:
        """The loop's key in a checkpoint, whatever kind of run it is."""
        return "loop"

    @property
    def updates_done(self) -> int:
        """Updates since the run began, over every time it was resumed."""
        return self.module.updates

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
        return bool(self.evaluations.final_returns)

    def results(self) -> dict[str, Any]:
        """What the subclass adds to the results of a run."""
        return {}

    def stop_collecting(self) -> None:
        """Break off what is played beside the updates: a checkpoint is about to be written where the run stops."""

    # --- updates --------------------------------------------------------------------------------------------------

    def _batches(self) -> Generator[Batch]:
        """What Lightning pulls from: begin or continue, follow the algorithm, stop."""
        self._begin()
        try:
            yield from self.algorithm()
        except Interrupted:
            self.run.interrupt.requested(sum_over_ranks)  # so that all know which signal it was
            # what began after the last checkpoint is not saved: it is there that the run continues
            self._saved = self._position_of_save()
            self.run.progress.print(f"stopped; python -m trainers.fit resume={self.run.paths.root} continues")
        self.run.trainer.should_stop = True

    def _begin(self) -> None:
        """Take the signals, continue from the checkpoint where there is one, and write down what the run is."""
        self.run.interrupt.claim()  # Lightning's own handler would call a collective from within a signal
        self.module.clock.begin()
        if self.run.heartbeat is not None:
            self.run.heartbeat.progress = lambda: (self.module.clock.booked_at, self.run.interrupt.asked)
        if self._resumed is not None:
            self._continue(self._resumed)
        else:
            # the ranks were given the same weights, which they need, and with them the same noise
            torch.manual_seed(rank_seed(torch.initial_seed(), self.run.rank))
        if self.run.config["trainer"]["cuda_graphs"]:
            record_graphs(self.module)
        self.ranks.begin()
        if self.run.trainer.is_global_zero:  # nothing can refuse the run any more
            device, renderer = self.run.device_name, self.renderer
            agent = self.run.config["agent"]
            if "continuation" in agent:  # what was decided, so that the weights fit whatever another environment says
                agent["continuation"] = self.module.agent.continuation is not None
            write_records(self.run.paths, self.run.config, self.spec, device=device, renderer=renderer)

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
        self.run.progress.update(updates=module.updates)

    def on_train_end(self, trainer: pl.Trainer, module: WorldModelModule) -> None:  # type: ignore[override]
        """Save where a flag of Lightning's ended the run, and make sure that all ranks learned the same weights."""
        self.data.batches.close()
        self.save()
        try:
            require_same_weights(module)
        finally:
            if self.run.heartbeat is not None:
                self.run.heartbeat.stop_watching()

    def stop_if_asked(self) -> None:
        """Save and raise Interrupted on all ranks where a signal asked one of them to stop."""
        if self.run.interrupt.requested(sum_over_ranks):
            self.stop_collecting()
            self.save()
            raise Interrupted

    def evaluate_if_due(self) -> None:
        """Evaluate where the run has come to the next evaluation; raises Interrupted where a signal asks to stop."""
        if self.evaluations.due:
            self.evaluations.play(final=False)
            self.stop_if_asked()

    def evaluate_finally(self) -> None:
        """The evaluation whose returns are the run's result, unless a run that is continued has it already."""
        if self.evaluations.final_due:
            self.evaluations.play(final=True)
            self.stop_if_asked()

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
        evaluations = self.evaluations
        return self.module.updates, self.counters["env_steps"], evaluations.next_at, evaluations.final_returns

    def state_dict(self) -> dict[str, Any]:
        """Counters, and every rank's own state and random numbers; called on all ranks."""
        cuda_rng = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        rank = {**self.rank_state(), "torch_rng": torch.get_rng_state(), "cuda_rng": cuda_rng}
        return {
            "counters": self.counters,
            "updates_due": self.updates_due,
            "next_evaluation": self.evaluations.next_at,
            "updates": self.module.updates,
            "final_returns": self.evaluations.final_returns,
            "generation": self.run.generation,
            "ranks": gather_over_ranks(rank),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters, and keep the rest until training starts: only then is the trainer's state restored."""
        self._resumed = state_dict
        self.restore_counters(state_dict["counters"])
        self.updates_due = state_dict["updates_due"]
        self.evaluations.next_at = state_dict["next_evaluation"]
        self.evaluations.final_returns = state_dict["final_returns"]

    def _continue(self, state: dict[str, Any]) -> None:
        self._saved = self._position_of_save()
        former = self.run.former_ranks
        rank = self.deal_state(former) if former else state["ranks"][self.run.rank]
        self.restore(rank)
        self.run_log.rewind()
        if former:
            torch.manual_seed(rank_seed(self.run.config["seed"], self.run.rank, generation=self.run.generation))
        else:
            torch.set_rng_state(rank["torch_rng"])
            if rank["cuda_rng"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(rank["cuda_rng"])
