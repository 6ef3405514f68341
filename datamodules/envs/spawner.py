"""Children that the kernel ends with this process, whichever thread asked for them."""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from subprocess import Popen

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
