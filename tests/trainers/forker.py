"""Loads torch and Lightning once, and forks a fresh process for every run that a test asks for.

A line of JSON on stdin starts a run or asks how one stands; every answer is one line. Each run leads a process group
of its own, so that a test can signal it as a terminal does.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import trainers.acting.evaluate_checkpoint
import trainers.evaluate
import trainers.fit
import trainers.reporting.run_page  # loaded by every run at its end: plotting takes a second of it
import trainers.training.train
from trainers.command.entry import run

MAINS = {"fit": trainers.fit, "evaluate": trainers.evaluate}


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if "poll" in job:
            print(json.dumps(poll(job["poll"])), flush=True)
            continue
        pid = os.fork()
        if not pid:
            become(job)
            sys.exit(run(MAINS[job["main"]].main, usage=""))
        print(pid, flush=True)


def poll(pid: int) -> int | None:
    """Exit code, negative for a signal, None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def become(job: dict) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a test run that is killed leaves no runs behind
    os.setpgid(0, job["group"])
    for number, (name, flags) in enumerate(((os.devnull, os.O_RDONLY), (job["out"], 1), (job["err"], 1))):
        handle = os.open(name, flags | (os.O_CREAT | os.O_APPEND if number else 0), 0o644)
        os.dup2(handle, number)
    os.environ.update(job["environ"])
    for name in [name for name, value in job["environ"].items() if not value]:
        del os.environ[name]
    sys.argv = ["trainers." + job["main"], *job["arguments"]]


if __name__ == "__main__":
    serve()
