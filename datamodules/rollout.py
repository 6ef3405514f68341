"""The only caller of `step`: plays whole episodes in a pool of environments and hands every row on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.checks import check_row
from datamodules.envs.errors import EnvError
from datamodules.envs.protocol import Envs, Fault, Step
from datamodules.observation import Observation, empty
from worldmodel.spec import EnvSpec

Actions = NDArray[np.float32]  # [n, A]

# an answer that takes longer is no slow step any more: others need not wait for its episode to end
STALL_S = 5.0
# how far beyond [-1, 1] an action may be by rounding
ROUNDING = 1e-6
OnRow = Callable[[int, Step, NDArray[np.float32]], None]


@runtime_checkable
class Policy(Protocol):
    """Chooses actions for all environments of a pool at once."""

    def __call__(self, observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]) -> Actions:
        """Actions [n, A] in [-1, 1] for what n environments show, by name [n, ...]; rows with is_first [n] open one.

        Rows that are not ready [n] hold an old observation: what is remembered of them must not change, and what they
        draw must not change what others draw, or results would depend on who is late.
        """


@dataclass(slots=True)
class Episode:
    """What one episode brought; `fault` says why it ended early, if a worker failed.

    calls: for every decision, the number of the policy's call in this `play` that made it. terminal: it ended by
    termination.
    """

    index: int
    seed: int
    total_return: float = 0.0
    env_steps: int = 0
    decisions: int = 0
    rewards: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    fault: Fault | None = None
    terminal: bool = False


def play(
    pool: Envs,
    policy: Policy,
    seeds: dict[int, int],
    *,
    on_row: OnRow | None = None,
    on_fault: Callable[[Fault], None] | None = None,
    spare: Callable[[int], int] | None = None,
    on_turn: Callable[[], None] = lambda: None,
    stall_s: float = STALL_S,
) -> list[Episode]:
    """Play one episode in every worker of {index: seed}, each until it ends; raises what the pool raises.

    on_row(index, step, action) gets every row of every episode, the opening one with a zero action. A worker's fault
    ends its episode, and so does an action that is not finite or out of range: on_fault gets it, and the returned
    Episode carries it. The rows of an episode depend on its seed and the policy alone, not on when they arrive.
    spare(index) is the seed of one more episode, played by those that have ended while one that was late by more
    than stall_s seconds holds up all others. on_turn() is called before every decision and every wait for a late
    answer: what it raises breaks off the play.
    """
    run = _Run(pool, list(seeds), on_row, on_fault)
    run.open(seeds)
    while run.unfinished():
        on_turn()
        if spare is not None and run.stalls(stall_s):
            run.open({index: spare(index) for index in run.idle()})
        run.decide(policy)
    return run.episodes


class _Run:
    """The state of one `play`: who waits for an action, who for an answer, and who has ended."""

    def __init__(self, pool: Envs, order: list[int], on_row: OnRow | None, on_fault: Callable[[Fault], None] | None):
        spec, n = pool.spec, len(order)
        self._pool, self._order = pool, order
        self._on_row, self._on_fault = on_row, on_fault
        self._place = {index: place for place, index in enumerate(order)}
        self._current: dict[int, Episode] = {}
        self.episodes: list[Episode] = []
        self._observation = empty(spec, n)
        self._is_first, self._ready = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        self._actions = np.zeros((n, spec.action_dim), np.float32)
        self._asked: dict[int, float] = {}
        self._stalled: set[int] = set()
        self._calls = 0

    def open(self, seeds: dict[int, int]) -> None:
        """Begin an episode in each of {index: seed}."""
        for index, seed in seeds.items():
            self._current[index] = Episode(index=index, seed=seed)
            self.episodes.append(self._current[index])
            self._is_first[self._place[index]] = True
            self._actions[self._place[index]] = 0
        self._asked |= dict.fromkeys(seeds, time.monotonic())
        self._receive(self._pool.reset(seeds))

    def unfinished(self) -> bool:
        """Whether an episode is under way."""
        return bool(self._asked) or bool(self._ready.any())

    def idle(self) -> list[int]:
        """Who has no episode under way."""
        return [index for index in self._order if index not in self._asked and not self._ready[self._place[index]]]

    def stalls(self, limit_s: float) -> bool:
        """Whether an environment that was late by more than limit_s still has its episode under way."""
        now = time.monotonic()
        self._stalled |= {index for index, asked in self._asked.items() if now - asked > limit_s}
        self._stalled -= set(self.idle())
        return bool(self._stalled)

    def decide(self, policy: Policy) -> None:
        """Act wherever a frame waits, and take what has arrived by then."""
        if not self._ready.any():
            self._receive(self._pool.step({}))
            return
        chosen = policy(self._observation, self._is_first, self._ready.copy())
        acting = [index for index in self._order if self._ready[self._place[index]]]
        self._is_first[self._ready] = False
        self._ready[:] = False
        accepted = {}
        for index in acting:
            self._current[index].calls.append(self._calls)
            action = _accepted(chosen, self._place[index], self._actions)
            if isinstance(action, str):
                self._receive({index: Fault(index, "action", action)})
            else:
                accepted[index] = action.copy()  # a pool may change it, and the stored one must not
        self._calls += 1
        self._asked |= dict.fromkeys(accepted, time.monotonic())
        if accepted:
            self._receive(self._pool.step(accepted))

    def _receive(self, rows: dict[int, Step | Fault]) -> None:
        """Book the arrived rows."""
        for index, row in rows.items():
            self._asked.pop(index, None)
            place = self._place[index]
            row = _accepted_row(index, row, self._pool.spec, opens=bool(self._is_first[place]))
            if isinstance(row, Fault):
                self._current[index].fault = row
                if self._on_fault is not None:
                    self._on_fault(row)
                continue
            for name, values in row.observation.items():
                self._observation[name][place] = values
            _count(self._current[index], row)
            if self._on_row is not None:
                self._on_row(index, row, self._actions[place])
            self._ready[place] = not row.is_last


def _accepted_row(index: int, row: Step | Fault, spec: EnvSpec, *, opens: bool) -> Step | Fault:
    """The row, or the fault that it is: whatever pool it comes from, nothing else is handed on."""
    if isinstance(row, Fault):
        return row
    try:
        check_row(row, spec, opens=opens)
    except EnvError as error:
        return Fault(index, error.kind, str(error))
    return row


def _accepted(chosen: Any, place: int, actions: Actions) -> Actions | str:
    """The action of one row, kept in `actions` [n, A], or why it must not reach an environment."""
    if getattr(chosen, "shape", None) != actions.shape:
        return f"expected shape {actions.shape}, got {getattr(chosen, 'shape', type(chosen).__name__)}"
    action = np.asarray(chosen[place], np.float32)
    # NaN fails this comparison too
    if not (np.abs(action) <= 1 + ROUNDING).all():
        return f"expected finite values in [-1, 1], got {action.tolist()}"
    actions[place] = np.clip(action, -1, 1)
    return actions[place]


def _count(episode: Episode, row: Step) -> None:
    episode.env_steps += row.env_steps
    episode.terminal = row.is_terminal
    if not row.is_first:
        episode.decisions += 1
        episode.total_return += row.reward
        episode.rewards.append(row.reward)


class SmoothRandom:
    """The base policy π0: Ornstein-Uhlenbeck noise, since white noise at 50 Hz averages out in a body with inertia.

    rngs: one for each environment. smoothing: share of the last noise kept per decision. std: of the stationary
    noise, before clipping to [-1, 1].
    """

    def __init__(
        self, spec: EnvSpec, *, rngs: Sequence[np.random.Generator], smoothing: float = 0.6, std: float = 0.8
    ) -> None:
        self._noise = np.zeros((len(rngs), spec.action_dim))
        self._rngs, self._smoothing, self._std = list(rngs), smoothing, std

    def __call__(self, observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]) -> Actions:
        """Actions [n, A] that do not look at what is observed."""
        for row in np.flatnonzero(ready):
            fresh = self._std * self._rngs[row].standard_normal(self._noise.shape[1])
            old_share, new_share = (0.0, 1.0) if is_first[row] else (self._smoothing, np.sqrt(1 - self._smoothing**2))
            self._noise[row] = old_share * self._noise[row] + new_share * fresh
        return np.clip(self._noise, -1, 1).astype(np.float32)
