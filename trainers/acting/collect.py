"""Collection: episodes from this rank's environments into this rank's replay, counted over all ranks."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.protocol import FAULT_KINDS, Fault, MeasuresTraffic, Pool, Step
from datamodules.envs.seeds import episode_seed
from datamodules.envs.supervised import FaultLimit
from datamodules.replay import Replay
from datamodules.rollout import Episode, Policy, SmoothRandom, play
from trainers.acting.agent_policy import AgentPolicy
from trainers.acting.exploration import Exploration
from trainers.process.clock import Clock
from trainers.process.distributed import sum_over_ranks
from trainers.process.interrupt import Interrupted
from worldmodel.interfaces import Acts

COUNTS = ("env_steps", "decisions", "episodes")
KINDS = tuple(f"faults/{kind}" for kind in FAULT_KINDS)
COUNTED = (*COUNTS, *KINDS)  # in an order that every rank has


def damage(blocks: int, rows: int) -> dict[str, int]:
    """`replay/damaged_blocks` and `replay/lost_rows`, only where there is damage."""
    return {"replay/damaged_blocks": blocks, "replay/lost_rows": rows} if blocks or rows else {}


def counters_of(counted: Counter[str]) -> dict[str, int]:
    """env_steps, decisions, episodes, faults, and `faults/<kind>` only where there was one."""
    kinds = {kind: counted[kind] for kind in KINDS if counted[kind]}
    return {name: counted[name] for name in COUNTS} | {"faults": sum(kinds.values()), **kinds}


class Collector:
    """Algorithm 26, lines 1 and 4 to 7: plays one episode in each environment and appends every row.

    Counters (env_steps, decisions, episodes, faults) are global: summed over ranks after every round.
    exploration: noise of the agent's actions. report: is told of every fault. limit: of faults, those too
    that only a player sees, such as a policy's actions; beyond it WorkerLost is raised. should_stop: asked before every
    decision, whether to break off what is played; nothing of it counts then, and Interrupted is raised on all ranks.
    last_fault: this rank's.
    """

    def __init__(
        self,
        pool: Pool,
        replay: Replay,
        *,
        envs: int,
        seed: int,
        rank: int,
        clock: Clock,
        exploration: Exploration,
        report: Callable[[Fault], None] = lambda fault: None,
        limit: FaultLimit | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool, self._replay, self._envs = pool, replay, envs
        self._seed, self._rank, self._clock, self._exploration = seed, rank, clock, exploration
        self._report, self._should_stop = report, should_stop
        self._limit = limit or FaultLimit()
        self._next_episode = [0] * envs
        self._total, self._fresh = Counter[str](), Counter[str]()  # of COUNTED
        self.last_fault: Fault | None = None

    @property
    def env_steps(self) -> int:
        """Control steps, over all ranks."""
        return self._total["env_steps"]

    def traffic(self) -> dict[str, float]:
        """What went over the network, see MeasuresTraffic; {} where the environments are here."""
        return self._pool.traffic() if isinstance(self._pool, MeasuresTraffic) else {}

    @property
    def decisions(self) -> int:
        """Decisions, over all ranks."""
        return self._total["decisions"]

    def seed_episodes(self, rounds: int, *, std: float = 0.8) -> list[Episode]:
        """Line 1: rounds of the base policy, whose actions have this std; raises Interrupted."""
        rngs = [np.random.default_rng(self._draw_seed(2, i, 0)) for i in range(self._envs)]
        policy = SmoothRandom(self._pool.spec, rngs=rngs, std=std)
        return self._play_to_the_end(
            lambda: [e for _ in range(rounds) for e in self._round(policy, self._raise_if_stopped)]
        )

    def collect(self, agent: Acts) -> tuple[list[Episode], AgentPolicy]:
        """Lines 4 to 7: one round of the agent, with what its planner predicted; raises Interrupted."""
        policy = self._policy(agent, self._clock)
        return self._play_to_the_end(lambda: self._round(policy, self._raise_if_stopped)), policy

    def start_next_round(self, agent: Acts) -> None:
        """The learner is about to learn; a round that this collector plays is played when it is asked for."""

    def stop_round(self) -> None:
        """Stop playing: nothing is played that was not asked for."""

    def close(self) -> None:
        """Let go of what plays; pool and replay are the caller's."""

    def state_dict(self) -> dict[str, Any]:
        """This rank's episode numbers, and what it played that is not in `counters` yet."""
        return {"next_episode": list(self._next_episode), "fresh": counters_of(self._fresh)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the next episodes' seeds; called on all ranks, when the replay has its rows again.

        Episodes that were under way are closed as truncated, and what was played of them is counted.
        """
        self._next_episode = list(state["next_episode"])
        self._fresh = Counter(state["fresh"])
        self._close_open()
        self._count_round()

    def deal_state(self, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """This rank's state, made of those of another number of ranks: no rank plays an episode's seed again."""
        number = max(number for rank in ranks for number in rank["next_episode"])
        fresh = Counter[str]()
        for rank in ranks if self._rank == 0 else ():
            fresh.update(rank["fresh"])
        return {"next_episode": [number] * self._envs, "fresh": counters_of(fresh)}

    @property
    def counters(self) -> dict[str, int]:
        """Global counters."""
        return counters_of(self._total)

    @counters.setter
    def counters(self, values: dict[str, int]) -> None:
        self._total = Counter(values)

    def _policy(self, agent: Acts, clock: Clock) -> AgentPolicy:
        """The agent, whose noise in an episode depends on the episode's number alone."""
        seeds = [self._draw_seed(1, i, number) for i, number in enumerate(self._next_episode)]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        found = self._replay.rewarded_rows() if self._exploration.random else 0
        return AgentPolicy(agent, generators=generators, clock=clock, exploration=self._exploration, found=found)

    def _play_to_the_end(self, play: Callable[[], list[Episode]]) -> list[Episode]:
        """What is played to its end on all ranks; raises Interrupted on all of them where one broke it off."""
        played: list[Episode] | None = None
        with self._clock.measure("env"), suppress(Interrupted):
            played = play()
        whole = sum_over_ranks([int(played is None)]) == [0]
        if played is None or not whole:
            self._fresh.clear()
            raise Interrupted
        self._count_round()
        return played

    def _raise_if_stopped(self) -> None:
        if self._should_stop():
            raise Interrupted

    def _round(self, policy: Policy, on_turn: Callable[[], None]) -> list[Episode]:
        seeds = {i: self._take_seed(i) for i in range(self._envs)}
        episodes = play(
            self._pool,
            policy,
            seeds,
            on_row=self._append,
            on_fault=self._close_faulty,
            spare=self._take_seed,
            on_turn=on_turn,
        )
        self._replay.flush()
        return episodes

    def _take_seed(self, index: int) -> int:
        number = self._next_episode[index]
        self._next_episode[index] += 1
        return self._draw_seed(0, index, number)

    def _draw_seed(self, use: int, index: int, number: int) -> int:
        return episode_seed(self._seed, self._rank, use * self._envs + index, number)

    def _append(self, index: int, step: Step, action: NDArray[np.float32]) -> None:
        with self._replay.lock:  # what is stored is counted, whenever a checkpoint is written
            self._replay.append(index, step, action)
            self._fresh["env_steps"] += step.env_steps
            self._fresh["episodes" if step.is_first else "decisions"] += 1

    def _close_faulty(self, fault: Fault) -> None:
        self.last_fault = fault
        self._report(fault)
        with self._replay.lock:
            self._replay.truncate(fault.index)
            self._fresh[f"faults/{fault.kind}"] += 1
        self._limit.count(fault)

    def _close_open(self) -> None:
        for index in range(self._envs):
            self._replay.truncate(index)

    def _count_round(self) -> None:
        """Add what all ranks played since the last call to the counters; called on all ranks."""
        added = sum_over_ranks([self._fresh[name] for name in COUNTED])
        self._total.update(dict(zip(COUNTED, added, strict=True)))
        self._fresh.clear()
