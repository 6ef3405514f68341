"""`trainers.deployment.planner_process` with a model that takes up to ten times as long at random, once it is tuned."""

import random
import sys
import time
from typing import Any

from trainers.deployment import planner_process
from trainers.deployment.planning import DeadlinePlanner


class SlowPlanner(DeadlinePlanner):
    def _tune(self) -> dict[str, Any]:
        tuned, returns, rng = super()._tune(), self._simulator.returns, random.Random(0)

        def slowed(latent: Any, actions: Any) -> Any:
            start = time.monotonic()
            result = returns(latent, actions)
            time.sleep((time.monotonic() - start) * rng.uniform(0, 10))
            return result

        self._simulator.returns = slowed  # type: ignore[method-assign]
        return tuned


if __name__ == "__main__":
    planner_process.DeadlinePlanner = SlowPlanner  # type: ignore[misc]
    planner_process.main(*sys.argv[1:])
