"""Evaluation: seeded episodes without exploration, all in one batch per decision."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.errors import EnvError
from datamodules.envs.pool import episode_seed
from datamodules.envs.protocol import Pool, Step
from datamodules.observation import Observation
from datamodules.rollout import Episode, Policy, play
from datamodules.trajectory import Trajectory
from trainers.acting.agent_policy import AgentPolicy
from trainers.process.clock import Clock
from trainers.process.interrupt import Interrupted
from trainers.run_folder.statistics import evaluation_metrics
from worldmodel.interfaces import Acts

EVALUATION_RANK = 2**31  # no training rank has it: evaluation starts are never trained on


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
    ) -> Evaluation:
        """Evaluate; the same seeds and the same planner noise at every call. Raises Interrupted on should_stop()."""
        width = min(self._envs, episodes)
        pool = self._pool_of(width)
        filmed: Trajectory | None = None
        played: list[Episode] = []
        latencies: list[float] = []
        for start in range(0, episodes, width):
            count = min(width, episodes - start)
            noise = [episode_seed(self._seed, EVALUATION_RANK, 1, start + i) for i in range(count)]
            generators = [torch.Generator().manual_seed(seed) for seed in noise]
            policy = AgentPolicy(agent, generators=generators, clock=clock or Clock())
            seeds = {i: episode_seed(self._seed, EVALUATION_RANK, 0, start + i) for i in range(count)}
            rows: list[tuple[Step, NDArray[np.float32]]] = []
            on_row = _rows_of_first(rows) if filmed is None else None
            batch = play(pool, _timed(policy, latencies, should_stop), seeds, on_row=on_row)
            if filmed is None and batch[0].fault is None:
                filmed = Trajectory.from_rows(rows)
            played += batch
        return _summary(played, filmed, latencies)

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


def _rows_of_first(
    rows: list[tuple[Step, NDArray[np.float32]]],
) -> Callable[[int, Step, NDArray[np.float32]], None]:
    """Appends what environment 0 shows and was told."""

    def append(index: int, step: Step, action: NDArray[np.float32]) -> None:
        if index == 0:
            rows.append((step, np.array(action, np.float32)))

    return append


def _timed(policy: AgentPolicy, latencies: list[float], should_stop: Callable[[], bool]) -> Policy:
    def timed(observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]) -> NDArray[np.float32]:
        if should_stop():
            raise Interrupted
        start = time.perf_counter()
        actions = policy(observation, is_first, ready)
        latencies.append(1e3 * (time.perf_counter() - start))
        return actions

    return timed


def _summary(played: list[Episode], filmed: Trajectory | None, latencies: list[float]) -> Evaluation:
    """Episodes that a worker's fault cut short are counted, and their returns left out."""
    whole = [e for e in played if e.fault is None]
    if not whole and (fault := played[-1].fault):
        raise EvaluationFailed(f"every episode was cut short by a fault, the last by {fault.kind}: {fault.message}")
    return Evaluation(
        returns=[e.total_return for e in whole],
        seeds=[e.seed for e in whole],
        env_steps=sum(e.env_steps for e in played),
        decisions=sum(e.decisions for e in played),
        faults=len(played) - len(whole),
        decision_ms=latencies,
        filmed=filmed,
    )
