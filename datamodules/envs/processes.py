"""A worker's process and all that it starts: whatever ends it, nothing of them is left."""

import contextlib
import ctypes
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# asks a guardian to end its worker; the kernel sends it when the learner's process is gone
END = signal.SIGUSR2
# Ctrl-C and notices of preemption can reach every process of a job: the learner decides what they mean
LEARNERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# whose value all that a worker starts inherits
MARK = "WORLDMODEL_WORKER"


def guard(parent: int, *, private: Sequence[int] = ()) -> None:
    """Go on in a child process; this one, its guardian, ends with the child and takes along all that it started.

    Programs that moved to a session of their own, or whose parent has ended, are children of the guardian then: the
    kernel hands it every orphan. It ends in the same way as the child, whose signals are those of a fresh process.
    Elsewhere than on Linux nothing happens.

    Args:
        parent: Process id of the learner's process, whose end is the child's.
        private: Descriptors that the guardian must not hold open.
    """
    if sys.platform != "linux":
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [END, signal.SIGCHLD])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # end of file does not reach what hangs in C code; the kernel's signal does
    libc.prctl(_PR_SET_PDEATHSIG, END)
    if os.getppid() != parent:
        os._exit(0)
    guardian, child = os.getpid(), os.fork()
    if child:
        _outlive(child, private)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian:
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [END, signal.SIGCHLD])


def _outlive(child: int, private: Sequence[int]) -> NoReturn:
    for descriptor in private:
        os.close(descriptor)
    status = None
    while status is None:
        # both stay blocked: a handler of Python's runs within itself where signals come faster than it returns
        if signal.sigwait([END, signal.SIGCHLD]) == END:
            os.kill(child, signal.SIGKILL)  # its process id is its own until it is waited for below
        status = _status_of(child)
    with contextlib.suppress(ChildProcessError):  # until there is none
        while True:
            for orphan in _children():
                os.kill(orphan, signal.SIGKILL)
            os.wait()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
        os.kill(os.getpid(), -code)
    os._exit(code)


def _status_of(child: int) -> int | None:
    """Wait status of `child`, None while it runs; orphans that have ended are taken on the way."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in (0, child):
            return status if pid else None


def _children() -> list[int]:
    """Process ids of this process's children, those too that have ended but were not waited for."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                children.append(int(stat.parent.name))
    return children


def end_marked(mark: str) -> None:
    """End every process that inherited `mark`: what a guardian leaves that was killed itself."""
    for _ in range(10):  # what forks in the meantime is seen by the next pass
        marked = _marked(f"{MARK}={mark}".encode())
        for pid in marked:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not marked:
            return


def _marked(setting: bytes) -> list[int]:
    pids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if setting in environ.read_bytes().split(b"\0"):
                pids.append(int(environ.parent.name))
    return pids


def leave_signals(numbers: Sequence[int]) -> None:
    """Let signals pass without effect in this process alone: programs and forks of it have them as a fresh one does.

    They may be blocked before, and are not afterwards.
    """
    for number in numbers:
        # unlike SIG_IGN, a handler does not outlast the execution of a program
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    os.register_at_fork(after_in_child=partial(_as_fresh, numbers))


def _as_fresh(numbers: Sequence[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


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
