"""Processes that the kernel ends with the one that started them, in whichever way that one ends."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def follow(parent: int) -> bool:
    """End with the thread that started this process, at once and uncaught; False where `parent` is gone already.

    End of file does not reach what hangs in C code; the kernel's signal does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def lead_forks() -> None:
    """Let every process that the main thread forks from now on `follow` this one, and those that they fork, them.

    The processes of a vector environment are such forks. Those of other threads are left alone, since the kernel ends
    a follower with the thread that forked it, and those that execute a program as well.
    """
    before = _Fork()
    os.register_at_fork(before=before.note, after_in_child=before.follow)


class _Fork:
    """What is known before a fork, for its child."""

    def note(self) -> None:
        """Called in the process that forks."""
        self._parent, self._by_main = os.getpid(), threading.current_thread() is threading.main_thread()

    def follow(self) -> None:
        """Called in the child."""
        if self._by_main and not follow(self._parent):
            os._exit(0)
