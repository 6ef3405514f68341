"""Become `python -m trainers.fit` on given cores, told to save and end when its parent dies without saying so.

python -m trainers.sweeping.engines._child PARENT [CORE,CORE ...] ARGUMENTS OF FIT
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, cores: str, *arguments: str) -> None:
    """Replace this process; where the parent is gone already, end. Without cores all may be used."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    # SLURM's notice to every process of a job that its time is up: the parent answers it
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # of Linux; kept over the exec below
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(128 + signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "trainers.fit", *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
