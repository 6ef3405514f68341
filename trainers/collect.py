"""Collection: episodes from this rank's environments into this rank's replay, counted over all ranks."""

from typing import Any

import numpy as np
import torch
from torch import distributed

from datamodules.envs.pool import EnvPool, episode_seed
from datamodules.envs.protocol import Fault
from datamodules.replay import Replay
from datamodules.rollout import Episode, Policy, SmoothRandom, play
from trainers.acting import AgentPolicy
from trainers.clock import Clock
from worldmodel.agents.latent_mpc import LatentMPC


class Collector:
    """Algorithm 26, lines 1 and 4 to 7: plays one episode in each environment and appends every row.

    Counters (env_steps, decisions, episodes, faults) are global: summed over ranks after every round.
    noise_std: exploration noise of the agent's actions.
    """

    def __init__(
        self, pool: EnvPool, replay: Replay, *, envs: int, seed: int, rank: int, clock: Clock, noise_std: float
    ) -> None:
        self._pool, self._replay, self._envs = pool, replay, envs
        self._seed, self._rank, self._clock, self._noise_std = seed, rank, clock, noise_std
        self._rounds = 0
        self._generator = torch.Generator().manual_seed(episode_seed(seed, rank, envs, 0))
        self.env_steps = self.decisions = self.episodes = self.faults = 0

    def seed_episodes(self, rounds: int) -> list[Episode]:
        """Line 1: rounds of the base policy."""
        rng = np.random.default_rng(episode_seed(self._seed, self._rank, self._envs, 1))
        policy = SmoothRandom(self._pool.spec, count=self._envs, rng=rng)
        return [episode for _ in range(rounds) for episode in self._round(policy)]

    def collect(self, agent: LatentMPC) -> tuple[list[Episode], AgentPolicy]:
        """Lines 4 to 7: one round of the agent, with what its planner predicted."""
        generator = self._generator
        policy = AgentPolicy(agent, count=self._envs, generator=generator, clock=self._clock, noise_std=self._noise_std)
        return self._round(policy), policy

    def state_dict(self) -> dict[str, Any]:
        """This rank's rounds and generator; the counters are in `counters`."""
        return {"rounds": self._rounds, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the next round's seeds."""
        self._rounds = state["rounds"]
        self._generator.set_state(state["generator"])

    @property
    def counters(self) -> dict[str, int]:
        """Global counters."""
        return {name: getattr(self, name) for name in ("env_steps", "decisions", "episodes", "faults")}

    @counters.setter
    def counters(self, values: dict[str, int]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def _round(self, policy: Policy) -> list[Episode]:
        seeds = {i: episode_seed(self._seed, self._rank, i, self._rounds) for i in range(self._envs)}
        self._rounds += 1
        with self._clock.measure("env"):
            episodes = play(self._pool, policy, seeds, on_row=self._replay.append, on_fault=self._close_faulty)
            self._replay.flush()
        self._count(episodes)
        return episodes

    def _close_faulty(self, fault: Fault) -> None:
        self._replay.truncate(fault.index)

    def _count(self, episodes: list[Episode]) -> None:
        sums = [
            sum(e.env_steps for e in episodes),
            sum(e.decisions for e in episodes),
            len(episodes),
            sum(e.fault is not None for e in episodes),
        ]
        env_steps, decisions, count, faults = sum_over_ranks(sums)
        self.env_steps += env_steps
        self.decisions += decisions
        self.episodes += count
        self.faults += faults


def sum_over_ranks(numbers: list[int]) -> list[int]:
    """Elementwise sums over all ranks; the numbers themselves without a process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return numbers
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(numbers, dtype=torch.int64, device=device)
    distributed.all_reduce(total)
    return [int(number) for number in total]


def gather_over_ranks(value: Any) -> list[Any]:
    """Every rank's value in rank order, on every rank."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank_zero(tensor: torch.Tensor) -> None:
    """Overwrite a tensor with rank 0's."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast(tensor, src=0)
