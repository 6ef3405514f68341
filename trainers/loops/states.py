"""Algorithms 23, 24 and 25 as one Lightning callback: when to learn, collect, evaluate, save and stop."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl

from datamodules.envs.pool import episode_seed
from datamodules.envs.states import StateEnv
from datamodules.transitions import StateData, StateEpisode, TransitionSet, transitions
from trainers.acting.states import (
    BasePolicy,
    PlannedPolicy,
    StateEvaluator,
    kept_promises,
    play_states,
    shift,
    unit_of,
    write_episodes,
    write_film,
)
from trainers.build.agent import build_state_agent
from trainers.build.environments import open_states
from trainers.build.module import build_module
from trainers.command.configuration import BadConfig
from trainers.process.interrupt import Interrupted
from trainers.run_folder.statistics import evaluation_metrics
from trainers.training.loop import LoopContext, TrainingLoop
from trainers.training.module import WorldModelModule
from trainers.training.run import RunContext, RunParts


class StateLoop(TrainingLoop):
    """Collect with the base policy, learn f(s, a), plan; where `on_policy`, execute plans, add what came, and repeat.

    env_steps: control steps of all episodes together, at which the run ends. base_episodes: of the base policy, where
    the others are the agent's; without `on_policy` (version 0.5) all are the base policy's. updates_per_episode: so
    that versions that see the same number of episodes are fitted with the same number of updates.
    """

    axis = "env_steps"

    def __init__(
        self,
        surroundings: LoopContext,
        envs: Sequence[StateEnv],
        data: TransitionSet,
        *,
        config: dict[str, Any],
    ) -> None:
        super().__init__(surroundings)
        self.envs, self.data, self.config = list(envs), data, config
        options = config["data"]
        self.seed, self.env_steps = config["seed"], config["task"]["env_steps"]
        self.on_policy, self.base_std = options["on_policy"], options["base_std"]
        self.base_episodes = options["base_episodes"]
        self.updates_per_episode = options["updates_per_episode"]
        self.measured: dict[str, float] = {}
        self.progress.update(total_env_steps=self.env_steps)

    def begin(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Line 1, and the first fit."""
        self.progress.update(phase="seed")
        with module.clock.measure("env"):
            while self._is_base(len(self.data.episodes)):
                numbers = [number for number in self._next_numbers() if self._is_base(number)]
                policy = BasePolicy(self.spec, seeds=[self._draw_seed(2, n) for n in numbers], std=self.base_std)
                self._add(play_states(self.envs, policy, [self._draw_seed(0, n) for n in numbers]), module)
        self._fit(module)
        self.log_row(trainer, module, {})

    def between_updates(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """A fit is over: plan and execute where this version does, else evaluate and stop."""
        if self.counters["env_steps"] >= self.env_steps:
            if self.final_returns is None:
                self.evaluate(trainer, module, self.final_episodes, final=True)
            self.stop(trainer, module)
        elif self.position >= self.next_evaluation:
            self.evaluate(trainer, module, self.evaluation_episodes, final=False)
        else:
            self.save(trainer, module)
            self._execute(trainer, module)

    def _execute(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Plan through f(s, a), act, append: all but the fit of a round."""
        self.progress.update(phase="collect")
        numbers, self.final_returns = self._next_numbers(), None
        policy = PlannedPolicy(module.agent, seeds=[self._draw_seed(1, n) for n in numbers], clock=module.clock)
        seeds = [self._draw_seed(0, n) for n in numbers]
        module.eval()
        try:
            with module.clock.measure("env"):
                episodes = play_states(self.envs, policy, seeds, should_stop=self.interrupt.is_set)
        except Interrupted:
            return  # not one row of it is kept: the continued run plays it again
        finally:
            module.train()
        returns = {"train/return": float(np.mean([e.total_return for e in episodes]))}
        measured = self._measure(module, episodes)
        self._add(episodes, module)
        self.log_row(trainer, module, returns | measured)
        self._fit(module)
        self.progress.update(phase="learn")

    def _measure(self, module: WorldModelModule, own: Sequence[StateEpisode]) -> dict[str, float]:
        """What the agent's own episodes say about its model, before they are learned from."""
        base = [e for n, e in enumerate(self.data.episodes) if self._is_base(n)]
        agent = module.agent
        errors = shift(agent.dynamics, self.data.all(), own, unit_of(transitions(base)))
        return errors | kept_promises(own, horizon=agent.planner.horizon, discount=agent.discount)

    def _fit(self, module: WorldModelModule) -> None:
        """Line 2 of version 0.5, line 3 of the others: updates on all data for the episodes that are new."""
        device = module.device
        rows = self.data.all().to(device)
        module.agent.dynamics.begin_fit(rows.state, rows.action, rows.following)
        self.updates_due = self.updates_per_episode * len(self.data.episodes) - self.updates_done

    def _play(
        self, evaluator: StateEvaluator, trainer: pl.Trainer, module: WorldModelModule, episodes: int, *, final: bool
    ) -> bool:
        """Evaluate, and keep what is seen of the final one; whether it was played to its end."""
        try:
            stop = self.interrupt.is_set
            played = evaluator.run(module.agent, episodes=episodes, clock=module.clock, should_stop=stop)
        except Interrupted:
            return False
        returns = [episode.total_return for episode in played]
        measured = self._measure(module, played)
        if final:
            self.final_returns, self.measured = returns, measured
            write_episodes(self.paths.root, module.agent.dynamics, self.data.episodes, played)
            write_film(self.paths.videos, self.config, played[0], report=self.progress.print)
        shown = evaluation_metrics(returns)
        self.progress.update(eval_return=shown["eval/return_mean"])
        self.log_row(trainer, module, {**shown, **measured})
        return True

    def results(self) -> dict[str, Any]:
        """The errors and promises of the final evaluation, and how much of the data is the base policy's."""
        base = sum(self._is_base(n) for n in range(len(self.data.episodes)))
        return {"base_episodes": base, **{name.replace("/", "_"): value for name, value in self.measured.items()}}

    # --- episodes and their seeds ---------------------------------------------------------------------------------

    def _is_base(self, number: int) -> bool:
        """Whether the base policy plays episode `number`, whoever else could."""
        steps = number * self.spec.episode_steps
        return number < self.base_episodes if self.on_policy else steps < self.env_steps

    def _next_numbers(self) -> range:
        first = len(self.data.episodes)
        return range(first, first + len(self.envs))

    def _draw_seed(self, use: int, number: int) -> int:
        return episode_seed(self.seed, 0, use, number)

    def _add(self, episodes: Sequence[StateEpisode], module: WorldModelModule) -> None:
        self.data.add(episodes)
        for episode in episodes:
            self.progress.update(train_return=episode.total_return, loss=module.latest.get("loss/dynamics"))
        self.progress.update(env_steps=self.counters["env_steps"], decisions=self.counters["decisions"])

    # --- saving and resuming --------------------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """Counted from the data."""
        episodes = self.data.episodes
        env_steps = sum(episode.env_steps for episode in episodes)
        return {"env_steps": env_steps, "decisions": len(self.data), "episodes": len(episodes)}

    def restore_counters(self, counters: dict[str, int]) -> None:
        """Nothing: they come with the data."""

    def rank_state(self) -> dict[str, Any]:
        """All data: kilobytes."""
        return {"data": self.data.state_dict(), "measured": self.measured}

    def restore(self, rank: dict[str, Any]) -> None:
        """The data, and the updates that are due where the run was stopped within a fit."""
        self.data.load_state_dict(rank["data"])
        self.measured = rank["measured"]
        self.progress.update(env_steps=self.counters["env_steps"], decisions=self.counters["decisions"])


def make(*, session: RunContext) -> RunParts:
    """Environments in this process, the data they fill, and the loop."""
    config, stack, data = session.config, session.stack, session.config["data"]
    if session.trainer.world_size > 1:
        raise BadConfig(f"trainer.devices: expected 1 for data=states, got {session.trainer.world_size} processes")
    if config["dynamics"]["name"] == "linear" and data["updates_per_episode"]:
        got = f"got {data['updates_per_episode']}"
        raise BadConfig(f"data.updates_per_episode: expected 0 for dynamics=state_linear, solved as it stands; {got}")
    envs = [stack.enter_context(closing(open_states(config))) for _ in range(data["envs"])]
    spec = envs[0].spec
    module = build_module(config, build_state_agent(config, spec))
    transitions = TransitionSet(seed=config["seed"])
    options = config["evaluation"]
    evaluator = StateEvaluator(lambda: open_states(config), envs=options["envs"], seed=config["seed"])
    stack.enter_context(closing(evaluator))
    surroundings = replace(session.surroundings(spec, None), evaluator=evaluator)
    cycle = StateLoop(surroundings, envs, transitions, config=config)
    return RunParts(module, StateData(transitions, batch=data["batch"]), cycle, spec, renderer="none")
