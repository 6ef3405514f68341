"""Dyna-Q on tables (Algorithm 28, with the discount and the minus sign that the text lacks).

Sutton, Integrated Architectures for Learning, Planning, and Reacting (1990); Sutton and Barto (2018), section 8.2.
"""

import numpy as np
from numpy.typing import NDArray

from worldmodel.limits import require_number, require_whole
from worldmodel.tabular.maze import Transition
from worldmodel.tabular.model import TabularModel


class DynaQ:
    """Q-learning on real steps, and on `planning` steps of the learned model after each; 0 of them is Q-learning.

    Args:
        states, actions: their numbers.
        planning: K, backups of the model for each real step.
        step_size: α.
        discount: γ, in [0, 1].
        epsilon: share of actions that are drawn uniformly.
        initial: Q(s, a) at first; above every return it makes the learner try all actions of the states on its way.
        model_rate: as in `TabularModel`.
        seed: of actions and of what is planned.
    """

    def __init__(
        self,
        *,
        states: int,
        actions: int,
        planning: int = 50,
        step_size: float = 0.1,
        discount: float = 0.95,
        epsilon: float = 0.1,
        initial: float = 0.0,
        model_rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        require_whole(states=states, actions=actions)
        require_whole(planning=planning, least=0)
        require_number(step_size=step_size, above=0, most=1)
        require_number(discount=discount, epsilon=epsilon, least=0, most=1)
        self.planning, self.step_size, self.discount, self.epsilon = planning, step_size, discount, epsilon
        self.model = TabularModel(states, actions, rate=model_rate)
        self.values = np.full((states, actions), float(initial))  # Q(s, a)
        self.best = self.values.max(1)  # max_a Q(s, a)
        self.backups = 0  # of the model; real steps bring one more each
        self.random = np.random.default_rng(seed)
        self._tried: list[tuple[int, int]] = []

    def act(self, state: int) -> int:
        """An ε-greedy action; equally good ones are drawn among."""
        if self.random.random() < self.epsilon:
            return int(self.random.integers(self.values.shape[1]))
        row: NDArray[np.float64] = self.values[state]
        return int(self.random.choice(np.flatnonzero(row == row.max())))

    def learn(self, transition: Transition) -> None:
        """Lines 4 to 7 after a real step: Q-learning, the model, and planning."""
        state, action, reward, after, continues = transition
        self.move(state, action, reward + self.discount * continues * self.best[after])
        if not self.model.seen[state, action]:
            self._tried.append((state, action))
        self.model.learn(transition)
        self.plan()

    def plan(self) -> None:
        """K backups of states and actions that were tried before, drawn uniformly."""
        for number in self.random.integers(len(self._tried), size=self.planning):
            state, action = self._tried[number]
            self.move(state, action, self.model.target(state, action, self.best, self.discount))
        self.backups += self.planning

    def move(self, state: int, action: int, target: float) -> None:
        """Q(s, a) += α (target - Q(s, a))."""
        self.values[state, action] += self.step_size * (target - self.values[state, action])
        self.best[state] = self.values[state].max()
