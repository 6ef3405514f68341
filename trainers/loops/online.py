"""Algorithm 26 as a Lightning callback: when to learn, collect, evaluate, save and stop."""

from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl

from datamodules.envs.errors import WorkerFault
from datamodules.envs.protocol import Fault
from datamodules.online import OnlineData
from datamodules.replay import Replay
from datamodules.rollout import Episode
from datamodules.windows import no_window
from trainers.acting.collect import Collector, damage
from trainers.acting.collect_async import AsyncCollector
from trainers.acting.evaluation import promise
from trainers.build.agent import build_agent
from trainers.build.data import build_data, build_replay
from trainers.build.environments import build_fault_limit, open_pool
from trainers.build.module import build_module
from trainers.loops.observed_state import distribution_shift, fit_at_once
from trainers.process.distributed import gather_over_ranks, sum_over_ranks
from trainers.process.interrupt import Interrupted
from trainers.run_folder.paths import record_fault
from trainers.training.loop import LoopContext, TrainingLoop, fit_normalisers
from trainers.training.module import WorldModelModule
from trainers.training.run import RunContext, RunParts


class OnlineLoop(TrainingLoop):
    """Seed episodes, then forever: learn for the updates that are due, plan and act for a round, append.

    env_steps: control steps at which the run ends. update_ratio: updates per decision, over all ranks.
    Checkpoints are written between rounds, when every episode is closed: that is what makes a resumed run equal to an
    uninterrupted one. A synchronous round that a signal breaks off is played again from the checkpoint before it.
    """

    axis = "env_steps"

    def __init__(
        self,
        surroundings: LoopContext,
        collector: Collector,
        replay: Replay,
        *,
        env_steps: int,
        update_ratio: float,
        seed_rounds: int,
        base_std: float = 0.8,
    ) -> None:
        super().__init__(surroundings)
        self.collector, self.replay = collector, replay
        self.env_steps, self.update_ratio, self.seed_rounds = env_steps, update_ratio, seed_rounds
        self.base_std = base_std
        self._damage: dict[str, int] = {}
        self.progress.update(total_env_steps=env_steps)

    def begin(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Line 1."""
        self.progress.update(phase="seed")
        try:
            seeds = self.collector.seed_episodes(self.seed_rounds, std=self.base_std)
        except Interrupted:
            self.abandon(trainer, module)
            return
        for episode in seeds:
            self._report([episode], {})
        self._require_windows(trainer.datamodule.length)
        fit_normalisers(module, self.replay.sample(min(512, self.replay.rows), 1))
        fit_at_once(module, self.replay)
        self.updates_due = self.update_ratio * self.collector.decisions
        self._count_damage()
        whole = [episode.total_return for episode in seeds if episode.fault is None]
        self.log_row(trainer, module, {"train/random_return": float(np.mean(whole))} if whole else {})

    def between_updates(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Lines 4 to 7: evaluate where it is time to, else save and collect, until it is over."""
        if self.collector.env_steps >= self.env_steps:
            if self.final_returns is None:
                self.evaluate(trainer, module, self.final_episodes, final=True)
            self.stop(trainer, module)
        elif self.collector.env_steps >= self.next_evaluation:
            self.evaluate(trainer, module, self.evaluation_episodes, final=False)
        else:
            self.save(trainer, module)
            self._collect(trainer, module)

    def _require_windows(self, length: int) -> None:
        """Raise ReplayEmpty on all ranks where one has no window of `length` rows, WorkerFault where a fault is why."""
        longest = min(gather_over_ranks(self.replay.longest))
        if longest < length:
            fault = next(filter(None, gather_over_ranks(self.collector.last_fault)), None)
            error = no_window(length, rows=self.replay.rows, longest=longest)
            if fault is None:
                raise error
            raise WorkerFault(f"no seed episode was long enough to learn from: {_line(fault)}") from error

    def _collect(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        self.progress.update(phase="collect")
        first = self.replay.next_rows
        before, self.final_returns = self.collector.decisions, None
        module.eval()
        try:
            episodes, policy = self.collector.collect(module.agent)
        except Interrupted:
            self.abandon(trainer, module)
            return
        if self.collector.env_steps < self.env_steps:
            self.collector.ahead(module.agent)
        module.train()
        self._bring_due(before)
        agent = module.agent
        kept = promise(policy.predicted, episodes, discount=agent.discount, horizon=agent.predicted_decisions)
        kept |= distribution_shift(agent, self.replay, first)
        fit_at_once(module, self.replay)
        self._report(episodes, module.latest)
        returns = [episode.total_return for episode in episodes]  # none of a round that a signal broke off
        self.log_row(trainer, module, {"train/return": float(np.mean(returns)), **kept} if returns else kept)
        self.progress.update(phase="learn")

    def rows_to_learn_from(self, data: OnlineData) -> int:
        """The sum over the ranks: each has a replay of its own."""
        return sum_over_ranks([data.rows])[0]

    def _bring_due(self, decisions_before: int) -> None:
        """Updates for the decisions that were counted since."""
        self.updates_due += self.update_ratio * (self.collector.decisions - decisions_before)

    def stop(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Stop playing, save and end the run."""
        before = self.collector.decisions
        self.collector.halt()
        self._bring_due(before)
        super().stop(trainer, module)

    def _report(self, episodes: list[Episode], losses: dict[str, float]) -> None:
        for episode in episodes:
            self.progress.update(
                env_steps=self.collector.env_steps,
                decisions=self.collector.decisions,
                train_return=episode.total_return,
                loss=losses.get("loss/image", losses.get("loss/reward")),
            )

    # --- saving and resuming --------------------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """The collector's and what the replay lost, over all ranks."""
        return self.collector.counters | self._damage

    def restore_counters(self, counters: dict[str, int]) -> None:
        """Into the collector; what is lost is counted on the disk."""
        self.collector.counters = counters

    def rank_state(self) -> dict[str, Any]:
        """The collector's and the replay's, of the same moment."""
        with self.replay.lock:
            return {"collector": self.collector.state_dict(), "replay": self.replay.state_dict()}

    def restore(self, rank: dict[str, Any]) -> None:
        """The collector's rounds and the replay's rows."""
        before = self.collector.decisions
        self.replay.load_state_dict(rank["replay"])
        self.collector.load_state_dict(rank["collector"])
        self._bring_due(before)
        self._count_damage()
        self.progress.update(env_steps=self.collector.env_steps, decisions=self.collector.decisions)

    def _count_damage(self) -> None:
        """Damage is found when a folder is opened and rolled back, never later; called on all ranks."""
        self._damage = damage(*sum_over_ranks([self.replay.damaged_blocks, self.replay.lost_rows]))


COLLECTORS = {"synchronous": Collector, "asynchronous": AsyncCollector}


def make(*, session: RunContext) -> RunParts:
    """Environments, this rank's replay shard, and the loop that fills it."""
    config, stack, rank, data = session.config, session.stack, session.rank, session.config["data"]
    pool = stack.enter_context(open_pool(config, data["envs"], gpu=session.gpu))
    module = build_module(config, build_agent(config, pool.spec))
    trainer = session.trainer
    replay = build_replay(
        config,
        pool.spec,
        session.paths,
        rank=rank,
        world_size=trainer.world_size,
        ranks_here=trainer.world_size // trainer.num_nodes,
    )
    stack.enter_context(closing(replay))
    batches = build_data(config, replay, world_size=session.trainer.world_size)
    session.progress.print(replay.summary())
    collector = COLLECTORS[data["collection"]](
        pool,
        replay,
        envs=data["envs"],
        seed=config["seed"],
        rank=rank,
        clock=module.clock,
        noise_std=config["agent"]["explore_std"],
        report=partial(_report_fault, session),
        limit=build_fault_limit(config),
        should_stop=session.interrupt.is_set,
    )
    stack.enter_context(closing(collector))
    cycle = OnlineLoop(
        session.surroundings(pool.spec, session.evaluator()),
        collector,
        replay,
        env_steps=config["task"]["env_steps"],
        update_ratio=data["update_ratio"],
        seed_rounds=data["seed_episodes"],
        base_std=data.get("base_std", 0.8),
    )
    return RunParts(module, batches, cycle, pool.spec, pool.renderer)


def _report_fault(session: RunContext, fault: Fault) -> None:
    session.progress.print(f"{_line(fault)}; its episode was cut short")
    record_fault(session.paths, _line(fault), fault.trace)


def _line(fault: Fault) -> str:
    return f"environment {fault.index}: {fault.kind}: {fault.message}"
