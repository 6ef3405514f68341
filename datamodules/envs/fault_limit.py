"""So many faults and no more: what restarts for ever hides its cause."""

import time
from collections import defaultdict, deque

from datamodules.envs.errors import WorkerLost
from datamodules.envs.protocol import Fault


class FaultLimit:
    """Allows each environment `most` faults within `window_s` seconds."""

    def __init__(self, *, most: int = 3, window_s: float = 300.0) -> None:
        self._most, self._window_s = most, window_s
        self._times: defaultdict[int, deque[float]] = defaultdict(deque)

    def count(self, fault: Fault) -> None:
        """Count a fault; raises WorkerLost with this last cause when its environment had too many."""
        times, now = self._times[fault.index], time.monotonic()
        times.append(now)
        while now - times[0] > self._window_s:
            times.popleft()
        if len(times) > self._most:
            raise WorkerLost(
                f"environment {fault.index} failed {len(times)} times in {self._window_s:g} s; "
                f"the last time: {fault.kind}: {fault.message}"
            )
