"""Prioritised sweeping: Dyna whose planning goes where values change most, and back from there to what leads there.

Moore and Atkeson, Prioritized Sweeping (1993); Sutton and Barto (2018), section 8.4.
"""

import heapq
from collections import defaultdict
from typing import Any

from worldmodel.limits import require_number, require_whole
from worldmodel.tabular.dyna_q import DynaQ
from worldmodel.tabular.maze import Transition


class PrioritisedSweeping(DynaQ):
    """Dyna-Q that backs up what would change most first, at most `planning` of it for each real step.

    Args:
        threshold: changes up to it are not worth a backup, at least 0.
        options: Dyna-Q's; `planning` is at least 1, for real steps are learned from by planning alone.
    """

    def __init__(self, *, threshold: float = 1e-4, **options: Any) -> None:
        require_number(threshold=threshold, least=0)
        super().__init__(**options)
        require_whole(planning=self.planning)
        self.threshold = threshold
        self._leads_to: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._queue: list[tuple[float, int, int]] = []  # a heap of (-change, state, action)
        self._waiting: dict[tuple[int, int], float] = {}  # the change that each is queued with

    def learn(self, transition: Transition) -> None:
        """Take the step into the model, queue it by how much it would change, and sweep."""
        self.model.learn(transition)
        self._leads_to[transition.next_state].add((transition.state, transition.action))
        self._consider(transition.state, transition.action)
        self.plan()

    def plan(self) -> None:
        """Back up the first of the queue and queue what leads there, until it is empty or K were made."""
        for _ in range(self.planning):
            entry = self._next()
            if entry is None:
                return
            state, action = entry
            before = self.best[state]
            self.move(state, action, self.model.target(state, action, self.best, self.discount))
            self.backups += 1
            self._consider(state, action)  # a step size below 1 leaves some of the change
            if self.best[state] != before:
                for leading in self._leads_to[state]:
                    self._consider(*leading)

    def _consider(self, state: int, action: int) -> None:
        change = abs(self.model.target(state, action, self.best, self.discount) - self.values[state, action])
        if change > max(self.threshold, self._waiting.get((state, action), 0.0)):
            self._waiting[state, action] = change
            heapq.heappush(self._queue, (-change, state, action))

    def _next(self) -> tuple[int, int] | None:
        """The first of the queue, without entries that a larger change has replaced."""
        while self._queue:
            change, state, action = heapq.heappop(self._queue)
            if self._waiting.get((state, action)) == -change:
                del self._waiting[state, action]
                return state, action
        return None
