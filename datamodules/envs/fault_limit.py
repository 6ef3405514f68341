"""So many faults and no more: what restarts for ever hides its cause."""

import time
from collections import deque

from datamodules.envs.errors import WorkerLost
from datamodules.envs.protocol import Fault


class FaultLimit:
    """Allows one environment `most` faults within `window_s` seconds."""

    def __init__(self, *, most: int, window_s: float) -> None:
        self._most, self._window_s = most, window_s
        self._times: deque[float] = deque()

    def count(self, fault: Fault) -> None:
        """Count a fault; raises WorkerLost with this last cause when there were too many."""
        times, now = self._times, time.monotonic()
        times.append(now)
        while now - times[0] > self._window_s:
            times.popleft()
        if len(times) > self._most:
            raise WorkerLost(
                f"environment {fault.index} failed {len(times)} times in {self._window_s:g} s; "
                f"the last time: {fault.kind}: {fault.message}"
            )
