"""Whole episodes where the state is observed, several side by side, by the base policy or by an agent."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.pool import episode_seed
from datamodules.envs.states import StateEnv
from datamodules.rollout import SmoothRandom
from datamodules.transitions import StateEpisode
from trainers.clock import Clock
from trainers.evaluation import EVALUATION_RANK
from trainers.interrupt import Interrupted
from worldmodel.agents.state_mpc import OpenPlan, StateMPC
from worldmodel.spec import StateSpec


class StatePolicy(Protocol):
    """Chooses actions for one decision after the other of episodes that begin together."""

    def __call__(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions [n, A] in [-1, 1] for states [n, D]."""

    def promised(self, index: int) -> tuple[tuple[int, float], ...]:
        """At which decisions episode `index` had a new plan, and the return that it predicted."""


class BasePolicy:
    """π0 of line 1: smooth noise of stationary `std` that does not look at the state."""

    def __init__(self, spec: StateSpec, *, seeds: Sequence[int], std: float = 0.8) -> None:
        self._noise = SmoothRandom(spec, rngs=[np.random.default_rng(seed) for seed in seeds], std=std)
        self._opens = np.ones(len(seeds), np.bool_)

    def __call__(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions [n, A]."""
        opens, self._opens = self._opens, np.zeros_like(self._opens)
        return self._noise(states, opens, np.ones_like(opens))

    def promised(self, index: int) -> tuple[tuple[int, float], ...]:
        """Nothing is planned."""
        return ()


class PlannedPolicy:
    """The agent, with noise of its own for every episode."""

    def __init__(self, agent: StateMPC, *, seeds: Sequence[int], clock: Clock) -> None:
        self._agent, self._clock = agent, clock
        self._device = next(agent.parameters()).device
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._carry: OpenPlan | None = None
        self._decisions = 0
        self._promised: list[tuple[int, NDArray[np.float32]]] = []

    def __call__(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions [n, A]."""
        with self._clock.measure("plan"), torch.inference_mode():
            state = torch.from_numpy(states).to(self._device)
            decision = self._agent.act(state, self._carry, generator=self._generators)
            if decision.predicted_return is not None:
                self._promised.append((self._decisions, decision.predicted_return.cpu().numpy()))
            self._carry, self._decisions = decision.carry, self._decisions + 1
            return decision.action.cpu().numpy()

    def promised(self, index: int) -> tuple[tuple[int, float], ...]:
        """Of every plan that was made."""
        return tuple((decision, float(values[index])) for decision, values in self._promised)


def play_states(
    envs: Sequence[StateEnv],
    policy: StatePolicy,
    seeds: Sequence[int],
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[StateEpisode]:
    """One episode in each of the first len(seeds) environments; raises Interrupted on should_stop()."""
    playing = dict(enumerate(envs[: len(seeds)]))
    rows = {i: env.reset(seeds[i]) for i, env in playing.items()}
    current = np.stack([rows[i].state for i in range(len(seeds))])
    states = {i: [row.state] for i, row in rows.items()}
    actions: dict[int, list[NDArray[np.float32]]] = {i: [] for i in rows}
    rewards: dict[int, list[float]] = {i: [] for i in rows}
    env_steps = dict.fromkeys(rows, 0)
    while playing:
        if should_stop():
            raise Interrupted
        chosen = policy(current)
        for i, env in list(playing.items()):
            row = env.step(chosen[i])
            states[i].append(row.state), actions[i].append(chosen[i].copy()), rewards[i].append(row.reward)
            current[i], env_steps[i] = row.state, env_steps[i] + row.env_steps
            if row.is_last:
                del playing[i]
    return [
        StateEpisode(
            state=np.stack(states[i]),
            action=np.stack(actions[i]),
            reward=np.asarray(rewards[i], np.float32),
            env_steps=env_steps[i],
            seed=seed,
            promised=tuple(p for p in policy.promised(i) if p[0] < len(rewards[i])),
        )
        for i, seed in enumerate(seeds)
    ]


class StateEvaluator:
    """Plays seeded episodes that are never learned from, in environments that start when they are needed."""

    def __init__(self, open_env: Callable[[], StateEnv], *, envs: int, seed: int) -> None:
        self._open, self._width, self._seed = open_env, envs, seed
        self._envs: list[StateEnv] = []

    def run(
        self, agent: StateMPC, *, episodes: int, clock: Clock, should_stop: Callable[[], bool] = lambda: False
    ) -> list[StateEpisode]:
        """Evaluate; the same seeds and the same planner noise at every call. Raises Interrupted on should_stop()."""
        width, played = min(self._width, episodes), []
        self._envs += [self._open() for _ in range(width - len(self._envs))]
        for first in range(0, episodes, width):
            numbers = range(first, min(first + width, episodes))
            starts, noise = ([episode_seed(self._seed, EVALUATION_RANK, use, n) for n in numbers] for use in (0, 1))
            policy = PlannedPolicy(agent, seeds=noise, clock=clock)
            played += play_states(self._envs, policy, starts, should_stop=should_stop)
        return played

    def close(self) -> None:
        """Close the environments."""
        while self._envs:
            self._envs.pop().close()
