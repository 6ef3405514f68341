"""Algorithm 26: the loop of a run that learns from what it acts."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from datamodules.data_module import WindowDataModule
from datamodules.envs.errors import WorkerFault
from datamodules.envs.protocol import Fault
from datamodules.replay import Replay
from datamodules.rollout import Episode
from datamodules.storage.shards import publish_generation, remove_other_shards
from datamodules.windows import no_window
from trainers.acting.agent_policy import seconds_per_decision
from trainers.acting.collect import Collector, damage
from trainers.acting.exploration import Exploration
from trainers.acting.return_gap import return_gap
from trainers.build.agent import build_agent
from trainers.build.data import build_data, build_replay, require_length, shard_capacity
from trainers.build.environments import build_fault_limit, open_pool
from trainers.loops.observed_state import distribution_shift, fit_at_once
from trainers.process.distributed import gather_over_ranks, sum_over_ranks
from trainers.run_folder.paths import record_fault
from trainers.training.loop import TrainingLoop
from trainers.training.module import WorldModelModule
from trainers.training.run_context import RunContext
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec


class OnlineLoop(TrainingLoop):
    """Algorithm 26: learn a model from what is acted, act by planning in it.

    Checkpoints are written between rounds, when every episode is closed: that is what makes a resumed run equal to an
    uninterrupted one. A synchronous round that a signal breaks off is played again from the checkpoint before it.

    options: spec, evaluator and renderer of a TrainingLoop.
    """

    axis = "env_steps"

    def __init__(
        self,
        run: RunContext,
        module: WorldModelModule,
        data: WindowDataModule,
        collector: Collector,
        replay: Replay,
        **options: Any,
    ) -> None:
        super().__init__(run, module, data, **options)
        self.collector, self.replay = collector, replay
        self.env_steps_limit: int = run.config["task"]["env_steps"]
        self.update_ratio: float = run.config["data"]["update_ratio"]
        self._damage: dict[str, int] = {}
        run.progress.update(total_env_steps=self.env_steps_limit)

    def algorithm(self) -> Iterator[Batch]:
        """Algorithm 26, top to bottom; Lightning makes one update of the model with every batch that is yielded."""
        if not self.run.resumed:
            self.collect_seed_episodes()  # line 1: D from the base policy
        while self.collector.env_steps < self.env_steps_limit:
            yield from self.learn()  # line 3: the updates that are due
            self.evaluate_if_due()
            self.save()
            self.plan_and_act()  # lines 4 to 7: a round of episodes, appended to D
        yield from self.learn()
        self.evaluate_finally()
        self.save()

    def collect_seed_episodes(self) -> None:
        """Rounds of the base policy, by which the frames are measured; raises Interrupted."""
        self.run.progress.update(phase="seed")
        data = self.run.config["data"]
        seeds = self.collector.seed_episodes(data["seed_episodes"], std=data["base_std"])
        for episode in seeds:
            self._report([episode], {})
        self._require_windows(self.data.length)
        self.module.fit_normalisers(self.replay.sample(min(512, self.replay.rows), 1))
        fit_at_once(self.module, self.replay)
        self.updates_due = self.update_ratio * self.collector.decisions
        self._count_damage()
        self.run.progress.update(step_s=self._expected_step_s())
        whole = [episode.total_return for episode in seeds if episode.fault is None]
        self.run_log.row({"train/random_return": float(np.mean(whole))} if whole else {})

    def _expected_step_s(self) -> float:
        """Seconds that the agent's decisions will take for an env_step: for the time left, before it has played."""
        envs = self.run.config["data"]["envs"]
        self.module.eval()
        decision_s = seconds_per_decision(self.module.agent, self.spec, envs=envs)
        self.module.train()
        return decision_s / (envs * self.spec.action_repeat)

    def plan_and_act(self) -> None:
        """One round of the agent, its row of metrics, and the updates that are due for it; raises Interrupted."""
        self.run.progress.update(phase="collect")
        module, decisions, self.evaluations.final_returns = self.module, self.collector.decisions, None
        first = self.replay.next_rows
        module.eval()
        episodes, policy = self.collector.collect(module.agent)
        if self.collector.env_steps < self.env_steps_limit:
            self.collector.start_next_round(module.agent)
        module.train()
        self._add_updates_for(self.collector.decisions - decisions)
        agent = module.agent
        metrics = return_gap(policy.predicted, episodes, discount=agent.discount, horizon=agent.predicted_decisions)
        metrics |= distribution_shift(agent, self.replay, first) | self.collector.traffic()
        fit_at_once(module, self.replay)
        self._report(episodes, module.latest)
        if episodes:  # none of a round that a signal broke off
            metrics = {"train/return": float(np.mean([episode.total_return for episode in episodes])), **metrics}
        self.run_log.row(metrics)

    def _add_updates_for(self, decisions: int) -> None:
        self.updates_due += self.update_ratio * decisions

    def stop_collecting(self) -> None:
        """Break off the round under way; what was played of it counts."""
        decisions = self.collector.decisions
        self.collector.stop_round()
        self._add_updates_for(self.collector.decisions - decisions)

    def _require_windows(self, length: int) -> None:
        """Raise ReplayEmpty on all ranks where one has no window of `length` rows, WorkerFault where a fault is why."""
        longest = min(gather_over_ranks(self.replay.longest))
        if longest < length:
            fault = next(filter(None, gather_over_ranks(self.collector.last_fault)), None)
            error = no_window(length, rows=self.replay.rows, longest=longest)
            if fault is None:
                raise error
            raise WorkerFault(f"no seed episode was long enough to learn from: {_line(fault)}") from error

    def rows_to_learn_from(self) -> int:
        """The sum over the ranks: each has a replay of its own."""
        return sum_over_ranks([self.data.rows])[0]

    def _report(self, episodes: list[Episode], losses: dict[str, float]) -> None:
        for episode in episodes:
            self.run.progress.update(
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

    def deal_state(self, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The replay as it was dealt out when it was opened; see `Collector.deal_state`."""
        collector = self.collector.deal_state([rank["collector"] for rank in ranks])
        return {"replay": self.replay.state_dict(), "collector": collector}

    def save(self) -> bool:
        """Write a checkpoint; the shards of another number of ranks go when no checkpoint needs them any more."""
        written = super().save()
        run, replay = self.run, self.run.paths.replay
        # shards that were dealt out anew are read once a checkpoint names them, never before
        if run.trainer.is_global_zero and (written or not run.former_ranks):
            publish_generation(replay, run.generation)
            if run.checkpoint is None or not run.checkpoint.exists():
                remove_other_shards(replay, run.generation, ranks=run.trainer.world_size)
        return written

    def restore(self, rank: dict[str, Any]) -> None:
        """The collector's rounds and the replay's rows."""
        decisions = self.collector.decisions
        self.replay.load_state_dict(rank["replay"])
        self.collector.load_state_dict(rank["collector"])
        self._add_updates_for(self.collector.decisions - decisions)
        self._count_damage()
        self.run.progress.update(env_steps=self.collector.env_steps, decisions=self.collector.decisions)

    def _count_damage(self) -> None:
        """Damage is found when a folder is opened and rolled back, never later; called on all ranks."""
        self._damage = damage(*sum_over_ranks([self.replay.damaged_blocks, self.replay.lost_rows]))


def make(*, run: RunContext) -> OnlineLoop:
    """Environments, this rank's replay shard, and the loop that fills it."""
    config, stack, data, trainer = run.config, run.stack, run.config["data"], run.trainer
    pool = stack.enter_context(open_pool(config, data["envs"], gpu=run.gpu))
    module = WorldModelModule.of(config, build_agent(config, pool.spec))
    if run.former_ranks:
        _reshard_replay(run, pool.spec)
    replay = build_replay(
        config,
        pool.spec,
        run.paths,
        rank=run.rank,
        world_size=trainer.world_size,
        ranks_here=trainer.world_size // trainer.num_nodes,
        generation=run.generation,
    )
    stack.enter_context(closing(replay))
    require_length(config, pool.spec.episode_decisions + 1)
    batches = build_data(config, replay, world_size=trainer.world_size)
    run.progress.print(replay.summary())
    collector = _collector_class(data["collection"])(
        pool,
        replay,
        envs=data["envs"],
        seed=config["seed"],
        rank=run.rank,
        clock=module.clock,
        exploration=Exploration.of(config["agent"], pool.spec),
        report=partial(_report_fault, run),
        limit=build_fault_limit(config),
        should_stop=run.interrupt.is_set,
    )
    stack.enter_context(closing(collector))
    options = {"spec": pool.spec, "evaluator": run.evaluator(pool.spec), "renderer": pool.renderer}
    return OnlineLoop(run, module, batches, collector, replay, **options)


def _collector_class(collection: str) -> type[Collector]:
    if collection == "synchronous":
        return Collector
    from trainers.acting.collect_async import AsyncCollector  # threads, which most runs do without

    return AsyncCollector


def _reshard_replay(run: RunContext, spec: EnvSpec) -> None:
    """Write this rank's shard from those of the checkpoint's ranks, which were more or fewer; raises ReplayEmpty."""
    from datamodules.reshard import OldShards, reshard  # where ranks have changed, and nowhere else

    config, data, ranks = run.config, run.config["data"], run.trainer.world_size
    states = [rank["replay"] for rank in run.former_ranks]
    folders = [run.paths.shard(rank, generation=run.generation - 1) for rank in range(len(states))]
    resharded = reshard(
        OldShards(folders, states, spec=spec, damage_limit=data["damage_limit"]),
        run.paths.shard(run.rank, generation=run.generation),
        spec=spec,
        shard=run.rank,
        shards=ranks,
        streams=data["envs"],
        capacity=shard_capacity(config, spec, ranks=ranks),
        flush_rows=data["flush_rows"],
    )
    run.progress.print(f"replay: dealt out from {len(states)} to {ranks} ranks: {resharded}")
    if resharded.longest < data["length"] and not data["across_episodes"]:
        raise no_window(data["length"], rows=resharded.rows, longest=resharded.longest)


def _report_fault(run: RunContext, fault: Fault) -> None:
    run.progress.print(f"{_line(fault)}; its episode was cut short")
    record_fault(run.paths, _line(fault), fault.trace)


def _line(fault: Fault) -> str:
    return f"environment {fault.index}: {fault.kind}: {fault.message}"
