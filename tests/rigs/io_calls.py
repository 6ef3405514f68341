"""Fails the n-th file operation of whatever runs within, so that every single one can be tried in turn."""

import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

CALLS = ("open", "write", "fsync", "ftruncate", "mkdir", "rmdir", "rename", "replace", "unlink", "link")
KINDS = ("EIO", "ENOSPC", "short", "exit")
EXIT_CODE = 77


class NthCall:
    """Counts file operations and fails the `n`-th: with an error, half of a write, or the end of the process.

    kind: of KINDS, or "kill" for SIGKILL. hit: whether it came to that. `wrap` makes functions outside of `os` count
    too.
    """

    def __init__(self, kind: str, n: int) -> None:
        if kind not in (*KINDS, "kill"):
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, kill, got {kind!r}")
        self.kind, self.left, self.hit = kind, n, False

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, failing when its turn comes."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left:
                return call(*args, **kwargs)
            self.hit = True
            if name == "write" and self.kind in ("short", "exit", "kill"):
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "exit":
                os._exit(EXIT_CODE)
            raise OSError(getattr(errno, self.kind, errno.ENOSPC), f"{name}: failed on purpose")

        return counted


@contextmanager
def failing(kind: str, n: int, *, calls: Sequence[str] = CALLS) -> Iterator[NthCall]:
    """Fail the `n`-th of the functions `calls` of `os` that is called within."""
    fault = NthCall(kind, n)
    kept = {name: getattr(os, name) for name in calls}
    try:
        for name, call in kept.items():
            setattr(os, name, fault.wrap(name, call))
        yield fault
    finally:
        for name, call in kept.items():
            setattr(os, name, call)
