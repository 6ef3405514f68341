"""When an anytime planner must stop iterating."""

import time

import torch


class Deadline:
    """Stops a loop before the iteration that would end after `at`, in seconds of time.monotonic(); None: never.

    An iteration is expected to take as long as the longest one so far.
    """

    def __init__(self, at: float | None, device: torch.device) -> None:
        self._at, self._device = at, device
        self._longest, self._started = 0.0, 0.0

    def allows_another(self) -> bool:
        """Whether one more iteration fits; call once before each."""
        if self._at is None:
            return True
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # work that was only queued has taken no time yet
        now = time.monotonic()
        if self._started:
            self._longest = max(self._longest, now - self._started)
        self._started = now
        return now + self._longest <= self._at
