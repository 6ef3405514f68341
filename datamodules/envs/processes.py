"""Processes that the kernel ends with the one that started them, whichever thread asked for them."""

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from subprocess import Popen

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


Start = Callable[[], "Popen[bytes]"]


class _Spawner:
    """A thread that lives as long as its process and starts children for the threads that do not."""

    def __init__(self) -> None:
        self.pid = os.getpid()  # a forked copy has no such thread
        self._jobs: queue.SimpleQueue[tuple[Start, Future[Popen[bytes]]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="spawner", daemon=True).start()

    def start(self, start: Start) -> "Popen[bytes]":
        """Run `start` in that thread; raises what it raises."""
        answer: Future[Popen[bytes]] = Future()
        self._jobs.put((start, answer))
        return answer.result()

    def _serve(self) -> None:
        while True:
            start, answer = self._jobs.get()
            try:
                answer.set_result(start())
            except BaseException as error:  # noqa: BLE001 - whatever it is, the asker waits for it
                answer.set_exception(error)


_lock = threading.Lock()
_spawner: _Spawner | None = None


def spawn(start: Start) -> "Popen[bytes]":
    """What `start()` returns, started by a thread that ends with the process.

    The kernel ties a parent-death signal to the thread that started the child: without this, children of a thread
    that returns would be killed, or would outlive their parent if they did without the signal.
    """
    global _spawner
    if threading.current_thread() is threading.main_thread():
        return start()
    with _lock:
        if _spawner is None or _spawner.pid != os.getpid():
            _spawner = _Spawner()
    return _spawner.start(start)
