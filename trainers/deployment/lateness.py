"""How late answers come after they were due: a busy machine wakes who waits for them by milliseconds too late."""

from collections import deque
from typing import Self

WINDOW = 200  # decisions; 10 s at 20 Hz until a load that is gone is forgotten
MOST = 0.5  # of a budget that is kept back: some planning goes on whatever the load


class Lateness:
    """Seconds to ask for answers earlier, by the latest of the last decisions.

    Args:
        budget_s: seconds of a decision; half is kept back at most.
        allowed_s: seconds after its budget at which a decision is still of use, for which nothing is kept back.
    """

    def __init__(self, *, budget_s: float, allowed_s: float) -> None:
        self._most_s, self._allowed_s = MOST * budget_s, allowed_s
        self._excess_s: deque[float] = deque([0.0], maxlen=WINDOW)

    @classmethod
    def within(cls, period_s: float, *, budget_s: float) -> Self:
        """Where half of what a period has beyond the budget is allowed: the rest is for the action's way."""
        return cls(budget_s=budget_s, allowed_s=max(0.0, period_s - budget_s) / 2)

    @property
    def reserve_s(self) -> float:
        """Seconds before the end of its budget at which a decision's plan is due."""
        return max(self._excess_s)

    def add(self, late_s: float) -> None:
        """Seconds by which an answer came after it was due; negative where it came before.

        What no reserve could have made up for is not counted: planning less would help nothing.
        """
        excess_s = late_s - self._allowed_s
        self._excess_s.append(excess_s if 0 < excess_s <= self._most_s else 0.0)
