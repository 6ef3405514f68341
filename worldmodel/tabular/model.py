"""A table of what every action led to, which is Dyna's model; and the values that are exact for a model."""

import numpy as np
from numpy.typing import NDArray

from worldmodel.limits import require_number
from worldmodel.tabular.maze import Maze, Transition


class TabularModel:
    """Estimates of E[r | s, a] and p(s' | s, a) (Algorithm 28, line 5).

    Args:
        states, actions: their numbers.
        rate: of forgetting: the newest outcome counts `rate`, all earlier ones together 1 - rate. 1 keeps the latest
            alone, which is exact in a deterministic world and follows one that changes; 0 counts all alike.

    Raises:
        BadValue: for a rate beyond [0, 1].
    """

    def __init__(self, states: int, actions: int, *, rate: float = 1.0) -> None:
        require_number(rate=rate, least=0, most=1)
        self.rate, self.seen = rate, np.zeros((states, actions), dtype=np.int64)
        self.reward = np.zeros((states, actions))
        self.follow = np.zeros((states, actions, states))  # probability to go on in s'; what is left to 1 ends there

    def learn(self, transition: Transition) -> None:
        """Take in one real step."""
        state, action, reward, after, continues = transition
        self.seen[state, action] += 1
        share = max(self.rate, 1 / self.seen[state, action])
        self.reward[state, action] += share * (reward - self.reward[state, action])
        self.follow[state, action] *= 1 - share
        self.follow[state, action, after] += share * continues

    def target(self, state: int, action: int, best: NDArray[np.float64], discount: float) -> float:
        """E[r + γ max_a' Q(s', a')], given best [S] = max_a Q(s, a)."""
        return float(self.reward[state, action] + discount * (self.follow[state, action] @ best))


def true_model(maze: Maze) -> TabularModel:
    """The model after every action was tried in every state once."""
    model = TabularModel(maze.states, maze.actions)
    for state in maze.free():
        for action in range(maze.actions):
            model.learn(maze.step(state, action))
    return model


def value_iteration(model: TabularModel, *, discount: float, tolerance: float = 1e-10) -> NDArray[np.float64]:
    """Q [S A] of the optimal policy in a model, to `tolerance`; Sutton and Barto (2018), section 4.4."""
    values = np.zeros_like(model.reward)
    while True:
        after = model.reward + discount * model.follow @ values.max(1)
        if np.abs(after - values).max() < tolerance:
            return after
        values = after
