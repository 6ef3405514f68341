"""The only caller of `step`: plays whole episodes in a pool of environments and hands every row on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault, Step
from worldmodel.spec import EnvSpec

Actions = NDArray[np.float32]  # [n, A]
OnRow = Callable[[int, Step, NDArray[np.float32]], None]


class Policy(Protocol):
    """Chooses actions for all environments of a pool at once."""

    def __call__(self, pixels: NDArray[np.uint8], is_first: NDArray[np.bool_]) -> Actions:
        """Actions [n, A] in [-1, 1] for frames [n, C, h, w]; rows with is_first open an episode."""


@dataclass(slots=True)
class Episode:
    """What one episode brought; `fault` says why it ended early, if a worker failed."""

    index: int
    seed: int
    total_return: float = 0.0
    env_steps: int = 0
    decisions: int = 0
    rewards: list[float] = field(default_factory=list)
    fault: Fault | None = None


def play(
    pool: EnvPool,
    policy: Policy,
    seeds: dict[int, int],
    *,
    on_row: OnRow | None = None,
    on_fault: Callable[[Fault], None] | None = None,
) -> list[Episode]:
    """Play one episode in every worker of {index: seed}, each until it ends; raises what the pool raises.

    on_row(index, step, action) gets every row of every episode, the opening one with a zero action. A worker's fault
    ends its episode: on_fault gets it, and the returned Episode carries it.
    """
    spec = pool.spec
    episodes = {index: Episode(index=index, seed=seed) for index, seed in seeds.items()}
    order = list(seeds)
    pixels = np.zeros((len(order), *spec.pixels), np.uint8)
    is_first = np.ones(len(order), np.bool_)
    actions = np.zeros((len(order), spec.action_dim), np.float32)
    running = _receive(pool.reset(seeds), order, episodes, actions, pixels, on_row, on_fault)
    while running:
        actions = policy(pixels, is_first)
        is_first[:] = False
        rows = pool.step({index: actions[order.index(index)] for index in running})
        running = _receive(rows, order, episodes, actions, pixels, on_row, on_fault)
    return list(episodes.values())


def _receive(
    rows: dict[int, Step | Fault],
    order: list[int],
    episodes: dict[int, Episode],
    actions: Actions,
    pixels: NDArray[np.uint8],
    on_row: OnRow | None,
    on_fault: Callable[[Fault], None] | None,
) -> list[int]:
    """Book the arrived rows; returns the indices whose episode goes on."""
    running = []
    for index, row in rows.items():
        if isinstance(row, Fault):
            episodes[index].fault = row
            if on_fault is not None:
                on_fault(row)
            continue
        place = order.index(index)
        pixels[place] = row.pixels
        _count(episodes[index], row)
        if on_row is not None:
            on_row(index, row, actions[place])
        if not row.is_last:
            running.append(index)
    return running


def _count(episode: Episode, row: Step) -> None:
    episode.env_steps += row.env_steps
    if not row.is_first:
        episode.decisions += 1
        episode.total_return += row.reward
        episode.rewards.append(row.reward)


class SmoothRandom:
    """The base policy π0: Ornstein-Uhlenbeck noise, since white noise at 50 Hz averages out in a body with inertia.

    smoothing: share of the last noise kept per decision. std: of the stationary noise, before clipping to [-1, 1].
    """

    def __init__(
        self, spec: EnvSpec, *, count: int, rng: np.random.Generator, smoothing: float = 0.6, std: float = 0.8
    ):
        self._noise = np.zeros((count, spec.action_dim))
        self._rng, self._smoothing, self._std = rng, smoothing, std

    def __call__(self, pixels: NDArray[np.uint8], is_first: NDArray[np.bool_]) -> Actions:
        """Actions [n, A] that do not look at the frames."""
        fresh = self._std * self._rng.standard_normal(self._noise.shape)
        kept = np.where(is_first[:, None], fresh, self._smoothing * self._noise)
        self._noise = kept + np.sqrt(1 - self._smoothing**2) * fresh * ~is_first[:, None]
        return np.clip(self._noise, -1, 1).astype(np.float32)
