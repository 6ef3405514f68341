"""The data set that every dynamics learns from: aimless, exploring and good episodes of one task."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.formats.uri import open_writer
from datamodules.observation import Observation
from datamodules.rollout import Policy, SmoothRandom, play
from trainers.acting.record_episodes import Recorder
from trainers.benchmarks.known_dynamics.cartpole import Cartpole
from trainers.benchmarks.known_dynamics.control import control
from trainers.build.environments import open_pool
from trainers.command.registry import make

# noise on the actions of a planner that knows the true dynamics, None for smooth random actions; five of them, so that
# the episodes held out, every sixth, are of different kinds
KINDS = (None, 0.0, 0.3, 0.6, None)
PLANNER = {"name": "icem", "horizon": 13, "candidates": 48, "elites": 8, "iterations": 3, "beta": 1.5}


class Script:
    """A rollout policy that plays one list of actions [T, A]."""

    def __init__(self, actions: NDArray[np.float32]) -> None:
        self._actions, self._next = actions, 0

    def __call__(
        self, observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """The next action, for one environment."""
        self._next = 0 if is_first[0] else self._next + 1
        return self._actions[self._next : self._next + 1]


def collect(config: dict[str, Any], folder: Path, *, episodes: int) -> None:
    """Record `episodes` of the configured swing-up into segments at `folder`.

    A data set that is there already is left as it is: it appears under its name when it is whole.
    """
    if folder.exists():
        return
    parts = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(parts, ignore_errors=True)
    with open_pool(config, 1) as pool, closing(open_writer(f"segments:{parts}", pool.spec)) as writer:
        recorder = Recorder(writer, str(folder))
        for number in range(episodes):
            start = episode_seed(0, SeedRank.RECORDING, 0, number)
            policy = _policy(pool.spec, KINDS[number % len(KINDS)], start)
            recorder.take(play(pool, policy, {0: start}, on_row=recorder.row), total=episodes)
    parts.replace(folder)


def _policy(spec: Any, noise: float | None, seed: int) -> Policy:
    if noise is None:
        return SmoothRandom(spec, rngs=[np.random.default_rng(seed)])
    planner = make("worldmodel.planners", PLANNER)
    model = Cartpole(repeat=spec.action_repeat)
    steps = spec.episode_steps
    played = control(model, planner, domain="cartpole", task="swingup", seed=seed, noise_std=noise, control_steps=steps)
    return Script(played.actions)
