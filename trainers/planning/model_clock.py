"""How long a planner spends in its model."""

from collections.abc import Callable
from typing import Any


class ModelClock:
    """A simulator whose calls add to `seconds`; everything else of it shows through."""

    def __init__(self, simulator: Any, now: Callable[[], float]) -> None:
        self._simulator, self._now, self.seconds = simulator, now, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._simulator, name)
        if not callable(found) or name == "dynamics":
            return found

        def timed(*arguments: Any, **options: Any) -> Any:
            start = self._now()
            result = found(*arguments, **options)
            self.seconds += self._now() - start
            return result

        return timed
