"""Algorithm 26 as a Lightning callback: when to learn, collect, evaluate, save and stop."""

import hashlib
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from datamodules.replay import Replay
from datamodules.rollout import Episode
from trainers.artifacts import write_pictures
from trainers.checkpoint import prune
from trainers.collect import Collector, broadcast_from_rank_zero, gather_over_ranks, sum_over_ranks
from trainers.evaluation import Evaluation, Evaluator
from trainers.interrupt import Interrupt, Interrupted
from trainers.loggers import log_films
from trainers.memory import resident_mb
from trainers.metrics import CSVMetrics
from trainers.module import WorldModelModule
from trainers.progress import RunProgress
from trainers.promise import promise
from trainers.run_paths import RunPaths


class RanksDiverged(RuntimeError):
    """Ranks that must hold the same weights do not."""


class Algorithm26(pl.Callback):
    """Seed episodes, then forever: learn for the updates that are due, plan and act for a round, append.

    env_steps: control steps at which the run ends. update_ratio: updates per decision, over all ranks.
    evaluate_every: env_steps between evaluations. Checkpoints are written between rounds, when every episode is
    closed: that is what makes a resumed run equal to an uninterrupted one.
    """

    def __init__(
        self,
        collector: Collector,
        evaluator: Evaluator,
        replay: Replay,
        *,
        paths: RunPaths,
        progress: RunProgress,
        interrupt: Interrupt,
        env_steps: int,
        update_ratio: float,
        seed_rounds: int,
        evaluate_every: int,
        evaluation_episodes: int,
        final_episodes: int,
        keep_checkpoints: int = 2,
    ) -> None:
        self.collector, self.evaluator, self.replay = collector, evaluator, replay
        self.paths, self.progress, self.interrupt = paths, progress, interrupt
        self.env_steps, self.update_ratio, self.seed_rounds = env_steps, update_ratio, seed_rounds
        self.evaluate_every, self.evaluation_episodes = evaluate_every, evaluation_episodes
        self.final_episodes, self.keep_checkpoints = final_episodes, keep_checkpoints
        self.updates_due, self.updates_done = 0.0, 0
        self.next_evaluation = evaluate_every
        self.final_returns: list[float] | None = None
        self._resumed: dict[str, Any] | None = None
        self._saved: tuple[Any, ...] | None = None
        self._updating = ExitStack()

    # --- the loop -------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, module: WorldModelModule) -> None:  # type: ignore[override]
        """Line 1, or the state of the checkpoint that the run continues from."""
        self.interrupt.claim()  # Lightning's own handler would call a collective from within a signal
        module.clock.begin()
        if self._resumed is not None:
            self._continue(trainer, self._resumed)
        else:
            # the ranks were given the same weights, which they need, and with them the same noise
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
            self.progress.update(phase="seed", total_env_steps=self.env_steps)
            for episode in self.collector.seed_episodes(self.seed_rounds):
                self._report([episode], {})
            self._fit_pixels(module)
            self.updates_due = self.update_ratio * self.collector.decisions
            self._log(trainer, module, {})
        self.progress.update(phase="learn", total_env_steps=self.env_steps)
        self._advance(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: WorldModelModule, *_: Any) -> None:  # type: ignore[override]
        """One update less is due."""
        self._updating.close()
        self.updates_due -= 1
        self.updates_done = module.updates
        self.progress.update(updates=module.updates)
        self._advance(trainer, module)

    def _advance(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Stop, or bring updates due, then start the clock on the next update, fetching its batch included."""
        self._bring_updates_due(trainer, module)
        self._updating.enter_context(module.clock.measure("update"))

    def _bring_updates_due(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Lines 4 to 7 when no update is due: evaluate, save, collect, until updates are due again or it is over."""
        while not self._stopped_by_signal(trainer, module) and self.updates_due < 1:
            if self.collector.env_steps >= self.env_steps:
                if self.final_returns is None:
                    self._evaluate(trainer, module, self.final_episodes, final=True)
                self._stop(trainer, module)
                return
            if self.collector.env_steps >= self.next_evaluation:
                self._evaluate(trainer, module, self.evaluation_episodes, final=False)
                continue
            self._save(trainer, module)
            self._collect(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: WorldModelModule) -> None:  # type: ignore[override]
        """Save where a flag of Lightning's ended the run, and make sure that all ranks learned the same weights."""
        self._updating.close()
        self._save(trainer, module)
        prints = gather_over_ranks(fingerprint(module))
        if len(set(prints)) > 1:
            raise RanksDiverged(f"weights: expected the same on all ranks, got SHA-256 {prints}")

    def _collect(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        self.progress.update(phase="collect")
        before, self.final_returns = self.collector.decisions, None
        module.eval()
        episodes, policy = self.collector.collect(module.agent)
        module.train()
        self.updates_due += self.update_ratio * (self.collector.decisions - before)
        kept = promise(policy.predicted, episodes, discount=module.agent.discount)
        self._report(episodes, module.latest)
        self._log(trainer, module, {"train/return": float(np.mean([e.total_return for e in episodes])), **kept})
        self.progress.update(phase="learn")

    def _fit_pixels(self, module: WorldModelModule) -> None:
        """Measure the frames of the seed episodes; all ranks take rank 0's statistics."""
        batch = self.replay.sample(min(512, self.replay.rows), 1)
        module.agent.pixels.fit(batch.pixels.flatten(0, 1))
        for buffer in module.agent.pixels.buffers():
            broadcast_from_rank_zero(buffer)

    # --- what a person sees ---------------------------------------------------------------------------------------

    def _evaluate(self, trainer: pl.Trainer, module: WorldModelModule, episodes: int, *, final: bool) -> None:
        """Evaluate on rank 0, unless a signal breaks it off; whether and when has no influence on the learning."""
        self.progress.update(phase="evaluate")
        done = True
        if trainer.is_global_zero and episodes:
            module.eval()
            with module.clock.measure("evaluation"), _own_random(module.device):
                done = self._play_evaluation(trainer, module, episodes, final=final)
            module.train()
        # rank 0's word for all: ranks that disagree on what comes next wait for each other for ever
        done, self.final_returns = gather_over_ranks((done, self.final_returns))[0]
        if done:
            self.next_evaluation = (self.collector.env_steps // self.evaluate_every + 1) * self.evaluate_every

    def _play_evaluation(self, trainer: pl.Trainer, module: WorldModelModule, episodes: int, *, final: bool) -> bool:
        """Whether it was played to its end."""
        stop = self.interrupt.is_set
        try:
            evaluation = self.evaluator.run(module.agent, episodes=episodes, clock=module.clock, should_stop=stop)
        except Interrupted:
            return False
        name = "final" if final else f"{self.collector.env_steps:09d}"
        pictures = write_pictures(self.paths.videos, module.agent, evaluation, self.replay.spec, name=name)
        if final:
            self.final_returns = evaluation.returns
        self.progress.update(eval_return=evaluation.return_mean)
        self._log(trainer, module, _evaluation_metrics(evaluation))
        log_films(trainer.loggers, pictures, env_steps=self.collector.env_steps)
        return True

    def _report(self, episodes: list[Episode], losses: dict[str, float]) -> None:
        for episode in episodes:
            self.progress.update(
                env_steps=self.collector.env_steps,
                decisions=self.collector.decisions,
                train_return=episode.total_return,
                loss=losses.get("loss/image"),
            )

    def _log(self, trainer: pl.Trainer, module: WorldModelModule, metrics: dict[str, float]) -> None:
        row = {**self.collector.counters, "updates": module.updates, "seconds": module.clock.total}
        row |= {**module.drain_metrics(), **metrics, **module.clock.split(), "skipped_updates": module.skipped}
        row["memory/resident_mb"] = resident_mb()
        for logger in trainer.loggers:
            logger.log_metrics(row, step=self.collector.env_steps)

    # --- saving and resuming --------------------------------------------------------------------------------------

    def _stopped_by_signal(self, trainer: pl.Trainer, module: WorldModelModule) -> bool:
        if not self.interrupt.requested(sum_over_ranks):
            return False
        self._stop(trainer, module)
        self.progress.print(f"stopped; python -m trainers.fit resume={self.paths.root} continues")
        return True

    def _stop(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        self._save(trainer, module)
        trainer.should_stop = True

    def _save(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        position = self._position(module.updates)
        if position == self._saved:
            return
        trainer.save_checkpoint(self.paths.checkpoint(module.updates, self.collector.env_steps))
        self._saved = position
        if trainer.is_global_zero:
            prune(self.paths.checkpoints, keep=self.keep_checkpoints)

    def _position(self, updates: int) -> tuple[Any, ...]:
        return updates, self.collector.env_steps, self.next_evaluation, self.final_returns

    def state_dict(self) -> dict[str, Any]:
        """Counters, and every rank's replay, random numbers and rounds; called on all ranks."""
        self.replay.discard_open()
        rank = {
            "collector": self.collector.state_dict(),
            "replay": self.replay.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        return {
            "counters": self.collector.counters,
            "updates_due": self.updates_due,
            "next_evaluation": self.next_evaluation,
            "updates": self.updates_done,
            "final_returns": self.final_returns,
            "ranks": gather_over_ranks(rank),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters, and keep the rest until training starts: only then is the trainer's state restored."""
        self._resumed = state_dict
        self.collector.counters = state_dict["counters"]
        self.updates_due, self.next_evaluation = state_dict["updates_due"], state_dict["next_evaluation"]
        self.updates_done, self.final_returns = state_dict["updates"], state_dict["final_returns"]
        self._saved = self._position(self.updates_done)

    def _continue(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        if len(state["ranks"]) != trainer.world_size:
            raise ValueError(
                f"resume: expected {len(state['ranks'])} ranks as in the checkpoint, got {trainer.world_size}"
            )
        rank = state["ranks"][trainer.global_rank]
        self.collector.load_state_dict(rank["collector"])
        self.replay.load_state_dict(rank["replay"])
        self.progress.update(env_steps=self.collector.env_steps, decisions=self.collector.decisions)
        for logger in trainer.loggers:
            if isinstance(logger, CSVMetrics):  # rows after the checkpoint will be written again
                logger.rewind(updates=state["updates"], env_steps=self.collector.env_steps)
        torch.set_rng_state(rank["torch_rng"])
        if rank["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(rank["cuda_rng"])


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 of all weights; running statistics are each rank's own until rank 0's are sent with the next update."""
    digest = hashlib.sha256()
    for tensor in module.parameters():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _own_random(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn within changes nothing outside."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    low, high = evaluation.return_ci95
    return {
        "eval/return_mean": evaluation.return_mean,
        "eval/return_ci95_low": low,
        "eval/return_ci95_high": high,
        "eval/episodes": len(evaluation.returns),
        "eval/faults": evaluation.faults,
        "eval/decision_ms": float(np.median(evaluation.decision_ms)),
    }
