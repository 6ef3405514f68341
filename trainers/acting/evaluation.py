"""Evaluation: seeded episodes without exploration, all in one batch per decision."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.errors import EnvError
from datamodules.envs.protocol import Pool, Step
from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.rollout import Episode, play
from datamodules.trajectory import Trajectory
from trainers.acting.agent_policy import AgentPolicy
from trainers.process.clock import Clock
from trainers.process.distributed import gather_over_ranks, rank_count, rank_number
from trainers.process.interrupt import Interrupted
from trainers.run_folder.statistics import evaluation_metrics
from worldmodel.interfaces import Acts


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Returns of the whole episodes, and one of them in full: the first whole one of environment 0, if it has any."""

    returns: list[float]
    seeds: list[int]
    env_steps: int
    decisions: int
    faults: int
    decision_ms: list[float]  # per batched decision
    filmed: Trajectory | None
    filmed_seed: int | None

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def metrics(self) -> dict[str, float]:
        """What a row of metrics says of it."""
        return {
            **evaluation_metrics(self.returns),
            "eval/faults": self.faults,
            "eval/decision_ms": float(np.median(self.decision_ms)),
        }


@dataclass(frozen=True, slots=True)
class _Turn:
    """Episodes that were played side by side, the first of which has number `start`."""

    start: int
    episodes: list[Episode]
    decision_ms: list[float]
    filmed: Trajectory | None


class EvaluationFailed(EnvError):
    """Not one episode was played to its end."""


class Evaluator:
    """Plays seeded episodes, at most `envs` at once, in a pool of its own that starts when it is needed."""

    def __init__(self, open_pool: Callable[[int], Pool], *, envs: int, seed: int) -> None:
        self._open_pool, self._envs, self._seed = open_pool, envs, seed
        self._pool: Pool | None = None
        self._width = 0  # how many environments the pool has

    def run(
        self,
        agent: Acts,
        *,
        episodes: int,
        clock: Clock | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        over_ranks: bool = False,
    ) -> Evaluation:
        """Evaluate; the same seeds and the same planner noise at every call.

        Args:
            agent: acts.
            episodes: how many.
            clock: books the time.
            should_stop: asked before every decision.
            over_ranks: whether all ranks call this and play by turns: whole batches, so that no return depends on how
                many ranks there are. All get all returns, the first rank the film.

        Raises:
            Interrupted: on should_stop(), with over_ranks on all ranks where one was asked to stop.
            EvaluationFailed: no episode was whole.
        """
        rank, ranks = (rank_number(), rank_count()) if over_ranks else (0, 1)

        def stop() -> None:
            if should_stop():
                raise Interrupted

        own: list[_Turn] | None = None
        with suppress(Interrupted):
            own = self._turns(agent, episodes, clock or Clock(), stop, rank=rank, ranks=ranks)
        filmed = next((one for one in own or () if one.filmed is not None), None)
        sent = None if own is None else [replace(one, filmed=None) for one in own]  # frames stay where they are
        turns: list[_Turn] = []
        for share in gather_over_ranks(sent) if over_ranks else [sent]:
            if share is None:
                raise Interrupted
            turns += share
        return _summary(sorted(turns, key=lambda one: one.start), filmed)

    def _turns(
        self, agent: Acts, episodes: int, clock: Clock, stop: Callable[[], None], *, rank: int, ranks: int
    ) -> list["_Turn"]:
        """What this rank plays; the first rank films its first whole episode of environment 0."""
        width = min(self._envs, episodes)
        turns: list[_Turn] = []
        for start in range(rank * width, episodes, ranks * width):
            numbers = range(start, min(start + width, episodes))
            noise, seeds = ([episode_seed(self._seed, SeedRank.EVALUATION, use, n) for n in numbers] for use in (1, 0))
            policy = AgentPolicy(agent, generators=[torch.Generator().manual_seed(seed) for seed in noise], clock=clock)
            film = rank == 0 and all(one.filmed is None for one in turns)
            rows: list[tuple[Step, NDArray[np.float32]]] = []
            on_row = partial(_keep_first, rows) if film else None
            played = play(self._pool_of(width), policy, dict(enumerate(seeds)), on_row=on_row, on_turn=stop)
            filmed = Trajectory.from_rows(rows) if film and played[0].fault is None else None
            turns.append(_Turn(start, played, policy.decision_ms, filmed))
        return turns

    def close(self) -> None:
        """End the pool."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _pool_of(self, width: int) -> Pool:
        if self._pool is None or self._width < width:
            self.close()
            self._pool, self._width = self._open_pool(width), width
        return self._pool


def _keep_first(
    rows: list[tuple[Step, NDArray[np.float32]]], index: int, step: Step, action: NDArray[np.float32]
) -> None:
    if index == 0:
        rows.append((step, action.copy()))


def _summary(turns: list[_Turn], filmed: _Turn | None) -> Evaluation:
    """Episodes that a worker's fault cut short are counted, and their returns left out."""
    played = [episode for turn in turns for episode in turn.episodes]
    whole = [e for e in played if e.fault is None]
    if not whole and (fault := played[-1].fault):
        raise EvaluationFailed(f"every episode was cut short by a fault, the last by {fault.kind}: {fault.message}")
    return Evaluation(
        returns=[e.total_return for e in whole],
        seeds=[e.seed for e in whole],
        env_steps=sum(e.env_steps for e in played),
        decisions=sum(e.decisions for e in played),
        faults=len(played) - len(whole),
        decision_ms=[ms for turn in turns for ms in turn.decision_ms],
        filmed=None if filmed is None else filmed.filmed,
        filmed_seed=None if filmed is None else filmed.episodes[0].seed,
    )
