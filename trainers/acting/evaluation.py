"""Evaluation: seeded episodes without exploration, all in one batch per decision."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.errors import EnvError
from datamodules.envs.pool import episode_seed
from datamodules.envs.protocol import Pool, Step
from datamodules.observation import Observation, empty
from datamodules.rollout import Episode, Policy, play
from trainers.acting.agent_policy import AgentPolicy
from trainers.process.clock import Clock
from trainers.process.interrupt import Interrupted
from trainers.run_folder.statistics import evaluation_metrics
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

EVALUATION_RANK = 2**31  # no training rank has it: evaluation starts are never trained on


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Returns of the whole episodes, and of one of them the rows and what its planner promised at every decision.

    That one is the first whole episode of environment 0; T = 0 where it has none.
    """

    returns: list[float]
    seeds: list[int]
    env_steps: int
    decisions: int
    faults: int
    decision_ms: list[float]  # per batched decision
    observation: Observation  # by name [T, ...], of the filmed episode
    actions: NDArray[np.float32]  # [T, A], arrival
    rewards: NDArray[np.float32]  # [T]
    predicted: NDArray[np.float32]  # [max(T - 1, 0)], the planner's predicted return at each decision

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The first image of the filmed episode's rows [T, C, h, w]; no rows where no image is observed."""
        images = (rows for rows in self.observation.values() if rows.dtype == np.uint8)
        return next(images, np.zeros((0, 1, 1, 1), np.uint8))

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

    def window(self, start: int, length: int) -> Batch:
        """Rows [start, start + length) of the filmed episode as a batch of one."""
        rows = slice(start, start + length)
        flags = torch.zeros(1, len(self.actions[rows]), dtype=torch.bool)
        is_first = flags.clone()
        is_first[0, 0] = start == 0
        return Batch(
            observation={name: torch.from_numpy(seen[rows])[None] for name, seen in self.observation.items()},
            action=torch.from_numpy(self.actions[rows])[None],
            reward=torch.from_numpy(self.rewards[rows])[None],
            is_first=is_first,
            is_last=flags,
            is_terminal=flags,
        )


class EvaluationFailed(EnvError):
    """Not one episode was played to its end."""


class Evaluator:
    """Plays seeded episodes, at most `envs` at once, in a pool of its own that starts when it is needed."""

    def __init__(self, open_pool: Callable[[int], Pool], *, envs: int, seed: int) -> None:
        self._open_pool, self._envs, self._seed = open_pool, envs, seed
        self._pool: Pool | None = None

    def run(
        self,
        agent: LatentMPC,
        *,
        episodes: int,
        clock: Clock | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Evaluate; the same seeds and the same planner noise at every call. Raises Interrupted on should_stop()."""
        width = min(self._envs, episodes)
        pool = self._pool_of(width)
        film = _Film(pool.spec)
        played: list[Episode] = []
        latencies: list[float] = []
        for start in range(0, episodes, width):
            count = min(width, episodes - start)
            noise = [episode_seed(self._seed, EVALUATION_RANK, 1, start + i) for i in range(count)]
            generators = [torch.Generator().manual_seed(seed) for seed in noise]
            policy = AgentPolicy(agent, generators=generators, clock=clock or Clock())
            seeds = {i: episode_seed(self._seed, EVALUATION_RANK, 0, start + i) for i in range(count)}
            on_row = None if film.is_whole else film
            batch = play(pool, _timed(policy, latencies, should_stop), seeds, on_row=on_row)
            if not film.is_whole:
                film.end(batch[0], policy)
            played += batch
        return _summary(played, film, latencies)

    def close(self) -> None:
        """End the pool."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _pool_of(self, width: int) -> Pool:
        if self._pool is None or len(self._pool.pids) < width:
            self.close()
            self._pool = self._open_pool(width)
        return self._pool


class _Film:
    """The rows of the first whole episode of environment 0, and what its planner promised."""

    def __init__(self, spec: EnvSpec) -> None:
        self._spec, self.is_whole = spec, False
        self._clear()

    def _clear(self) -> None:
        self.observations: list[Observation] = []
        self.actions: list[NDArray[np.float32]] = []
        self.rewards: list[float] = []
        self.predicted: list[float] = []

    def end(self, episode: Episode, policy: AgentPolicy) -> None:
        """Keep the rows if the episode is whole, or forget them."""
        self.is_whole = episode.fault is None
        if self.is_whole:
            self.predicted = [float(policy.predicted[call][0]) for call in episode.calls]
        else:
            self._clear()

    def arrays(self) -> dict[str, Any]:
        """What an Evaluation keeps of it."""
        return {
            "observation": {
                name: np.stack([seen[name] for seen in self.observations]) if self.observations else none
                for name, none in empty(self._spec, 0).items()
            },
            "actions": np.asarray(self.actions, np.float32).reshape(-1, self._spec.action_dim),
            "rewards": np.asarray(self.rewards, np.float32),
            "predicted": np.asarray(self.predicted, np.float32),
        }

    def __call__(self, index: int, step: Step, action: NDArray[np.float32]) -> None:
        if index == 0:
            self.observations.append(step.observation)
            self.actions.append(np.array(action, np.float32))
            self.rewards.append(step.reward)


def _timed(policy: AgentPolicy, latencies: list[float], should_stop: Callable[[], bool]) -> Policy:
    def timed(observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]) -> NDArray[np.float32]:
        if should_stop():
            raise Interrupted
        start = time.perf_counter()
        actions = policy(observation, is_first, ready)
        latencies.append(1e3 * (time.perf_counter() - start))
        return actions

    return timed


def _summary(played: list[Episode], film: _Film, latencies: list[float]) -> Evaluation:
    """Episodes that a worker's fault cut short are counted, and their returns left out."""
    whole = [e for e in played if e.fault is None]
    if not whole:
        fault = played[-1].fault
        raise EvaluationFailed(f"every episode was cut short by a fault, the last by {fault.kind}: {fault.message}")
    return Evaluation(
        returns=[e.total_return for e in whole],
        seeds=[e.seed for e in whole],
        env_steps=sum(e.env_steps for e in played),
        decisions=sum(e.decisions for e in played),
        faults=len(played) - len(whole),
        decision_ms=latencies,
        **film.arrays(),
    )


def promise(
    predicted: Sequence[NDArray[np.float32]], episodes: Sequence[Episode], *, discount: float, horizon: int | None
) -> dict[str, float]:
    """Means of the planner's predicted returns and of what came in the time that they are about.

    Episodes that a fault cut short say nothing.

    Args:
        predicted: one array per call of the policy, with an entry for each environment; NaN where nothing was planned.
        episodes: what was played.
        discount: per decision, of both.
        horizon: decisions that a prediction is about. None for one that a value continues past the episode's end: then
            what came is continued by the episode's last prediction, without which a perfect planner would look like
            one that promises too much. Else predictions past the episode's end are left out.

    Returns:
        `plan/predicted_return` and `plan/realised_return`; nothing where nothing can be compared.
    """
    promised, realised = [], []
    for episode in episodes:
        if episode.fault is not None:
            continue
        promises = np.array([float(predicted[call][episode.index]) for call in episode.calls])
        planned, rewards = np.flatnonzero(~np.isnan(promises)), np.asarray(episode.rewards)
        if horizon is None:
            spans = [(start, planned[-1], promises[planned[-1]]) for start in planned[:-1]]
        else:
            spans = [(start, start + horizon, 0.0) for start in planned if start + horizon <= len(rewards)]
        for start, end, following in spans:
            promised.append(promises[start])
            came = discount ** np.arange(end - start) @ rewards[start:end]
            realised.append(came + discount ** (end - start) * following)
    if not realised:
        return {}
    return {"plan/predicted_return": float(np.mean(promised)), "plan/realised_return": float(np.mean(realised))}
