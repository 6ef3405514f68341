"""Fails the n-th file operation of whatever runs, for tests that want the old content or the new one afterwards."""

import errno
import os
from collections.abc import Sequence


class Crash(BaseException):
    """Stands for the end of the process: no handler for errors catches it, and no later call reaches the disk."""


class Faults:
    """Fails the n-th file operation: "error" (half of a write) once, "crash" from then on.

    calls: the functions of `os` that count as one; `wrap` makes others count too.
    """

    def __init__(self, monkeypatch, kind: str, n: int, *, calls: Sequence[str]) -> None:
        self.kind, self.left, self.hit = kind, n, False
        for name in calls:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, call):
        def faulty(*args, **kwargs):
            self.left -= 1
            dead = self.kind == "crash" and self.left < 0
            if self.left != 0 and not dead:
                return call(*args, **kwargs)
            self.hit = True
            if name == "write" and not dead:
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise Crash if self.kind == "crash" else OSError(errno.ENOSPC, "injected")

        return faulty
