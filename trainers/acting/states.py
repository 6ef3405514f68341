"""Whole episodes where the state is observed, several side by side, by the base policy or by an agent."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from datamodules.envs.errors import EnvError
from datamodules.envs.pool import episode_seed
from datamodules.envs.protocol import Fault
from datamodules.envs.states import StateEnv
from datamodules.rollout import SmoothRandom
from datamodules.transitions import StateEpisode, transitions
from trainers.acting.evaluation import EVALUATION_RANK
from trainers.build.environments import open_pool
from trainers.process.clock import Clock
from trainers.process.interrupt import Interrupted
from trainers.run_folder.video import filmstrip, write_mp4, write_png
from worldmodel.agents.state_mpc import OpenPlan, StateMPC
from worldmodel.interfaces import Transitions
from worldmodel.spec import StateSpec
from worldmodel.state_dynamics import StateDynamics


def unit_of(base: Transitions) -> Float[Tensor, "D"]:
    """The std of every dimension's change in one decision under the base policy: what errors are counted in."""
    return (base.following - base.state).std(0).clamp_min(1e-6)


@torch.no_grad()
def one_step_error(dynamics: StateDynamics, rows: Transitions, unit: Float[Tensor, "D"]) -> float:
    """Root mean square of f(s, a) - s' over all rows and dimensions, in `unit`."""
    rows = rows.to(next(dynamics.parameters()).device)
    miss = (dynamics.predict(rows.state, rows.action) - rows.following) / unit.to(rows.state.device)
    return float(miss.square().mean().sqrt())


@torch.no_grad()
def imagined(dynamics: StateDynamics, episode: StateEpisode) -> Float[Tensor, "T D"]:
    """The states [T + 1, D] that the model expects from an episode's first state under its actions."""
    device = next(dynamics.parameters()).device
    state, actions = torch.from_numpy(episode.state[:1]).to(device), torch.from_numpy(episode.action).to(device)
    states = [state]
    for action in actions:
        states.append(dynamics.predict(states[-1], action[None]))
    return torch.cat(states).cpu()


def shift(
    dynamics: StateDynamics, fitted: Transitions, own: Sequence[StateEpisode], unit: Float[Tensor, "D"]
) -> dict[str, float]:
    """`error/data` on the transitions that the model was fitted to, `error/own` on those that its plans led to."""
    return {
        "error/data": one_step_error(dynamics, fitted, unit),
        "error/own": one_step_error(dynamics, transitions(own), unit),
    }


def kept_promises(episodes: Sequence[StateEpisode], *, horizon: int, discount: float) -> dict[str, float]:
    """Means of the returns that plans promised over their horizon, and of what came in that time.

    Plans that look past the episode's end are left out.
    """
    promised, realised = [], []
    for episode in episodes:
        weights = discount ** np.arange(horizon)
        for decision, value in episode.promised:
            came = episode.reward[decision : decision + horizon]
            if len(came) == horizon:
                promised.append(value)
                realised.append(float(weights @ came))
    if not realised:
        return {}
    return {"plan/predicted_return": float(np.mean(promised)), "plan/realised_return": float(np.mean(realised))}


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


FILM_SIZE = 128
FILM_SECONDS = 10


def write_episodes(
    root: Path, dynamics: StateDynamics, collected: Sequence[StateEpisode], evaluated: Sequence[StateEpisode]
) -> Path:
    """Write episodes.npz: `collected` and `evaluated` states [n, T + 1, D] with their actions, and what the model
    expected of the first evaluated episode [T + 1, D]; episodes of different lengths are padded with NaN."""
    arrays = {"expected": imagined(dynamics, evaluated[0]).numpy()}
    for name, episodes in (("collected", collected), ("evaluated", evaluated)):
        longest = max(len(e.state) for e in episodes)
        for part in ("state", "action"):
            rows = [getattr(e, part) for e in episodes]
            arrays[f"{name}_{part}"] = np.stack([_padded(x, longest) for x in rows])
    path = root / "episodes.npz"
    np.savez_compressed(path, **arrays)
    return path


def write_film(folder: Path, config: dict[str, Any], episode: StateEpisode, *, report: Callable[[str], None]) -> None:
    """Draw an episode by playing its actions again in the task's environment with frames, where that can draw."""
    try:
        frames = _drawn(config, episode)
    except EnvError as error:
        report(f"no film: {error}")
        return
    write_mp4(folder / "evaluation_final.mp4", frames, max(1.0, len(frames) / FILM_SECONDS))
    write_png(folder / "evaluation_final.png", filmstrip(frames, columns=10))


def _drawn(config: dict[str, Any], episode: StateEpisode) -> np.ndarray:
    # what was observed has no look; whatever the machine, software draws this one fast
    task = {**config["task"], "env": {**config["task"]["env"], "look": "fast"}}
    with open_pool({**config, "task": task}, 1, visuals={}) as pool:
        pool.reset({0: episode.seed})
        frames = [pool.render(0, FILM_SIZE)]
        for action in episode.action:
            row = pool.step({0: action})[0]
            if isinstance(row, Fault):
                raise EnvError(row.message)
            frames.append(pool.render(0, FILM_SIZE))
    return np.stack(frames)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, ((0, length - len(rows)), (0, 0)), constant_values=np.nan)
