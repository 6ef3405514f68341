"""What every run repeats, wherever its batches come from: learn, evaluate, log, save, stop, and continue later."""

import hashlib
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.online import OnlineData
from trainers.acting.evaluation import Evaluator
from trainers.acting.pictures import write_pictures
from trainers.process.clock import resident_mb
from trainers.process.distributed import broadcast_from_rank_zero, gather_over_ranks, sum_over_ranks
from trainers.process.interrupt import Interrupt, Interrupted
from trainers.run_folder.checkpoint import prune
from trainers.run_folder.loggers import log_films
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.paths import RunPaths
from trainers.training.module import WorldModelModule
from trainers.training.progress import RunProgress
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec


class RanksDiverged(RuntimeError):
    """Ranks that must hold the same weights do not."""


@dataclass(frozen=True, slots=True)
class LoopContext:
    """What a run writes to and is stopped by, and when it is evaluated.

    evaluator: plays episodes in the task, None where there is none. evaluate_every: steps of the cycle's axis.
    """

    paths: RunPaths
    progress: RunProgress
    interrupt: Interrupt
    evaluator: Evaluator | None
    spec: EnvSpec
    evaluate_every: int
    evaluation_episodes: int
    final_episodes: int
    keep_checkpoints: int = 2


class TrainingLoop(pl.Callback):
    """Updates while updates are due; when none is, whatever the subclass does to bring some due, or to end the run.

    A subclass names the counter that its curves are drawn over (`axis`), keeps its own counters and state, and says
    how a run begins and what happens between updates. Checkpoints are written there only.
    """

    axis: str

    def __init__(self, surroundings: LoopContext) -> None:
        self.evaluator, self.spec = surroundings.evaluator, surroundings.spec
        self.paths, self.progress, self.interrupt = surroundings.paths, surroundings.progress, surroundings.interrupt
        self.evaluate_every, self.evaluation_episodes = surroundings.evaluate_every, surroundings.evaluation_episodes
        self.final_episodes, self.keep_checkpoints = surroundings.final_episodes, surroundings.keep_checkpoints
        self.updates_due, self.updates_done = 0.0, 0
        self.next_evaluation = self.evaluate_every
        self.final_returns: list[float] | None = None
        self._resumed: dict[str, Any] | None = None
        self._saved: tuple[Any, ...] | None = None
        self._rows = 0  # that batches can come from, over all ranks; 0 before they are counted
        self._updating = ExitStack()

    @property
    def state_key(self) -> str:
        """The loop's key in a checkpoint, whatever kind of run it is."""
        return "loop"

    # --- what a subclass says -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Counters over all ranks, written on every row: env_steps is one of them."""

    @abstractmethod
    def restore_counters(self, counters: dict[str, int]) -> None:
        """Take the counters of a checkpoint."""

    @abstractmethod
    def begin(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """What comes before the first update of a run that continues none."""

    @abstractmethod
    def between_updates(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Called again and again while no update is due: makes one step towards the next, or stops the run."""

    def rows_to_learn_from(self, data: OnlineData) -> int:
        """Rows that batches can come from, over all ranks; called on all of them. Here every rank reads all of them."""
        return data.rows

    @abstractmethod
    def rank_state(self) -> dict[str, Any]:
        """This rank's state beside random numbers; called on all ranks."""

    @abstractmethod
    def restore(self, rank: dict[str, Any]) -> None:
        """Continue from this rank's state."""

    @property
    def finished(self) -> bool:
        """Whether the run came to the end that its configuration sets."""
        return bool(self.final_returns)

    def results(self) -> dict[str, Any]:
        """What the subclass adds to the results of a run."""
        return {}

    # --- the cycle ------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, module: WorldModelModule) -> None:  # type: ignore[override]
        """Begin, or take the state of the checkpoint that the run continues from."""
        self.interrupt.claim()  # Lightning's own handler would call a collective from within a signal
        module.clock.begin()
        if self._resumed is not None:
            self._continue(trainer, self._resumed)
        else:
            # the ranks were given the same weights, which they need, and with them the same noise
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
            self.begin(trainer, module)
        self.progress.update(phase="learn")
        self._advance(trainer, module)

    def on_train_batch_start(self, trainer: pl.Trainer, module: WorldModelModule, *_: Any) -> None:  # type: ignore[override]
        """The batch has come; the one after it may be prepared if it will be needed before anything else happens."""
        self._updating.close()
        self._updating.enter_context(module.clock.measure("update"))
        if self.updates_due >= 2:
            trainer.datamodule.prepare()
        module.count_rows(self._rows)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: WorldModelModule, outputs: dict[str, Any], batch: Batch, batch_idx: int
    ) -> None:
        """One update less is due."""
        trainer.datamodule.feedback(batch, outputs["error"])
        self._updating.close()
        self.updates_due -= 1
        self.updates_done = module.updates
        self.progress.update(updates=module.updates)
        self._advance(trainer, module)

    def _advance(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Stop, or bring updates due, then start the clock on the next batch."""
        while not (trainer.should_stop or self._stopped_by_signal(trainer, module)) and self.updates_due < 1:
            self.between_updates(trainer, module)
            self._rows = 0
        # rows come and go between updates alone
        self._rows = self._rows or self.rows_to_learn_from(trainer.datamodule)
        self._updating.enter_context(module.clock.measure("wait"))

    def on_train_end(self, trainer: pl.Trainer, module: WorldModelModule) -> None:  # type: ignore[override]
        """Save where a flag of Lightning's ended the run, and make sure that all ranks learned the same weights."""
        self._updating.close()
        self.save(trainer, module)
        prints = gather_over_ranks(fingerprint(module))
        if len(set(prints)) > 1:
            raise RanksDiverged(f"weights: expected the same on all ranks, got SHA-256 {prints}")

    # --- what a person sees ---------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Where the run stands on its axis."""
        return self.updates_done if self.axis == "updates" else self.counters[self.axis]

    def evaluate(self, trainer: pl.Trainer, module: WorldModelModule, episodes: int, *, final: bool) -> None:
        """Evaluate on rank 0, unless a signal breaks it off; whether and when has no influence on the learning."""
        self.progress.update(phase="evaluate")
        done = True
        if trainer.is_global_zero and episodes and self.evaluator is not None:
            module.eval()
            with module.clock.measure("evaluation"), own_random(module.device):
                done = self._play(self.evaluator, trainer, module, episodes, final=final)
            module.train()
        # rank 0's word for all: ranks that disagree on what comes next wait for each other for ever
        done, self.final_returns = gather_over_ranks((done, self.final_returns))[0]
        if done:
            self.next_evaluation = (self.position // self.evaluate_every + 1) * self.evaluate_every

    def _play(
        self, evaluator: Evaluator, trainer: pl.Trainer, module: WorldModelModule, episodes: int, *, final: bool
    ) -> bool:
        """Whether it was played to its end."""
        stop = self.interrupt.is_set
        try:
            evaluation = evaluator.run(module.agent, episodes=episodes, clock=module.clock, should_stop=stop)
        except Interrupted:
            return False
        name = "final" if final else f"{self.position:09d}"
        pictures = write_pictures(self.paths.videos, module.agent, evaluation, self.spec, name=name)
        if final:
            self.final_returns = evaluation.returns
        self.progress.update(eval_return=evaluation.return_mean)
        self.log_row(trainer, module, evaluation.metrics)
        log_films(trainer.loggers, pictures, axis=self.axis, position=self.position)
        return True

    def log_row(self, trainer: pl.Trainer, module: WorldModelModule, metrics: dict[str, float]) -> None:
        """One row: counters, means over the updates since the last row, times and `metrics`."""
        row = {**self.counters, "updates": module.updates, "seconds": module.clock.total}
        row |= {**module.drain_metrics(), **metrics, **module.clock.split(), "skipped_updates": module.skipped}
        row["memory/resident_mb"] = resident_mb()
        for logger in trainer.loggers:
            logger.log_metrics(row, step=self.position)

    # --- saving and resuming --------------------------------------------------------------------------------------

    def _stopped_by_signal(self, trainer: pl.Trainer, module: WorldModelModule) -> bool:
        if not self.interrupt.requested(sum_over_ranks):
            return False
        self.stop(trainer, module)
        self._say_how_to_continue()
        return True

    def stop(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Save and end the run."""
        self.save(trainer, module)
        trainer.should_stop = True

    def abandon(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """End the run without saving what began after the last checkpoint: it is there that the run continues."""
        self._saved = self._place(module.updates)
        trainer.should_stop = True
        self._say_how_to_continue()

    def _say_how_to_continue(self) -> None:
        self.progress.print(f"stopped; python -m trainers.fit resume={self.paths.root} continues")

    def save(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Write a checkpoint unless nothing happened since the last one."""
        place = self._place(module.updates)
        if place == self._saved:
            return
        trainer.datamodule.put_back()
        # where env_steps stand still, updates alone name a checkpoint
        collected = 0 if self.axis == "updates" else self.counters["env_steps"]
        trainer.save_checkpoint(self.paths.checkpoint(module.updates + collected))
        self._saved = place
        if trainer.is_global_zero:
            prune(self.paths.checkpoints, keep=self.keep_checkpoints)

    def _place(self, updates: int) -> tuple[Any, ...]:
        return updates, self.counters["env_steps"], self.next_evaluation, self.final_returns

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
            "ranks": gather_over_ranks(rank),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters, and keep the rest until training starts: only then is the trainer's state restored."""
        self._resumed = state_dict
        self.restore_counters(state_dict["counters"])
        self.updates_due, self.next_evaluation = state_dict["updates_due"], state_dict["next_evaluation"]
        self.updates_done, self.final_returns = state_dict["updates"], state_dict["final_returns"]
        self._saved = self._place(self.updates_done)

    def _continue(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        if len(state["ranks"]) != trainer.world_size:
            raise ValueError(
                f"resume: expected {len(state['ranks'])} ranks as in the checkpoint, got {trainer.world_size}"
            )
        rank = state["ranks"][trainer.global_rank]
        self.restore(rank)
        for logger in trainer.loggers:
            if isinstance(logger, CSVMetrics):  # rows after the checkpoint will be written again
                logger.rewind(updates=state["updates"], env_steps=self.counters["env_steps"])
        torch.set_rng_state(rank["torch_rng"])
        if rank["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(rank["cuda_rng"])


def fit_normalisers(module: WorldModelModule, rows: Batch) -> None:
    """Measure what is observed at the run's beginning; all ranks take rank 0's statistics."""
    module.agent.norm.fit({name: part.flatten(0, 1) for name, part in rows.observation.items()})
    for buffer in module.agent.norm.buffers():
        broadcast_from_rank_zero(buffer)


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of all weights; running statistics are each rank's own until rank 0's are sent with the next update."""
    digest = hashlib.sha256()
    for tensor in module.parameters():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def own_random(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn within changes nothing outside."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
