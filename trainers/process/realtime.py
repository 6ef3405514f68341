"""Real-time scheduling: a decision before everything ordinary on this machine, its plan right behind it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from worldmodel.errors import BadValue

PRIORITY = 2  # the least with room for plans below; the kernel's own real-time threads have 50 and more
NEEDED = "root, the capability CAP_SYS_NICE, or an rtprio limit in /etc/security/limits.conf"


@contextmanager
def realtime(wanted: bool = True) -> Iterator[None]:
    """Run this thread under Linux's SCHED_FIFO, and with it all threads and processes that it starts meanwhile.

    They keep it: only this thread is as before afterwards.

    Args:
        wanted: False leaves everything as it is.

    Raises:
        BadValue: another system than Linux, or no permission.
    """
    if not wanted:
        yield
        return
    if sys.platform != "linux":
        raise BadValue(f"realtime: expected Linux, got {sys.platform}")
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    if runs_first():  # as a person has started the program
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError as error:
        raise BadValue(f"realtime: expected the permission ({NEEDED}), got none: {error.strerror}") from error
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def runs_first() -> bool:
    """Whether this thread has real-time scheduling."""
    return sys.platform == "linux" and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)


def step_behind() -> None:
    """In a child of a real-time program: run after whoever waits for this one, whose deadline may come first."""
    if runs_first() and (priority := os.sched_getparam(0).sched_priority) > 1:
        os.sched_setscheduler(0, os.sched_getscheduler(0), os.sched_param(priority - 1))
