"""Dyna-Q+: planning rewards what was not tried for long, so that a world that became better is noticed.

Sutton and Barto (2018), section 8.3.
"""

import math
from typing import Any

import numpy as np

from worldmodel.limits import require_number
from worldmodel.tabular.dyna_q import DynaQ
from worldmodel.tabular.maze import Transition


class DynaQPlus(DynaQ):
    """Dyna-Q whose planned rewards are r + κ √τ, τ the real steps since (s, a) was tried.

    All actions of a visited state are planned; one that was never tried is thought to stay there without a reward.

    Args:
        kappa: κ, at least 0.
        options: Dyna-Q's.
    """

    def __init__(self, *, kappa: float = 1e-3, **options: Any) -> None:
        require_number(kappa=kappa, least=0)
        super().__init__(**options)
        self.kappa, self.steps = kappa, 0
        self._last = np.zeros(self.values.shape, dtype=np.int64)  # the real step at which (s, a) was tried
        self._visited: list[int] = []
        self._known = np.zeros(len(self.values), dtype=bool)

    def learn(self, transition: Transition) -> None:
        """As Dyna-Q, and remember when."""
        self.steps += 1
        self._last[transition.state, transition.action] = self.steps
        if not self._known[transition.state]:
            self._known[transition.state] = True
            self._visited.append(transition.state)
        super().learn(transition)

    def plan(self) -> None:
        """K backups of visited states and any action, with the bonus."""
        states = self.random.integers(len(self._visited), size=self.planning)
        actions = self.random.integers(self.values.shape[1], size=self.planning)
        for number, action in zip(states, actions, strict=True):
            state = self._visited[number]
            bonus = self.kappa * math.sqrt(self.steps - self._last[state, action])
            self.move(state, int(action), self._expected(state, int(action)) + bonus)
        self.backups += self.planning

    def _expected(self, state: int, action: int) -> float:
        if self.model.seen[state, action]:
            return self.model.target(state, action, self.best, self.discount)
        return float(self.discount * self.best[state])
