import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from datamodules.envs.processes import END, spawn

ROOT = Path(__file__).parents[3]
ENDING = """
import os, subprocess
from datamodules.envs.processes import guard
guard(os.getppid())
program = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(program.pid, flush=True)
os._exit(0)  # by itself, while the guardian is told to end it
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are told by Linux alone")
def test_a_guardian_that_is_told_to_end_a_worker_that_has_ended_takes_its_programs_along():
    for _ in range(20):
        command = [sys.executable, "-c", ENDING]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as guardian:
            program = int(guardian.stdout.readline())
            limit = time.monotonic() + 20
            while guardian.poll() is None and time.monotonic() < limit:
                guardian.send_signal(END)
            guardian.kill()
            assert guardian.stderr.read() == b""
            assert guardian.wait() in (0, -signal.SIGKILL)
        assert not Path(f"/proc/{program}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are told by Linux alone")
def test_a_guardian_runs_no_handler_that_a_flood_of_signals_could_nest():
    waiting = ENDING.replace("os._exit(0)", "program.wait()")
    with subprocess.Popen([sys.executable, "-c", waiting], cwd=ROOT, stdout=subprocess.PIPE) as guardian:
        program = int(guardian.stdout.readline())
        status = Path(f"/proc/{guardian.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        guardian.send_signal(END)
        assert guardian.wait(20) == -signal.SIGKILL  # as its worker, and nothing of it is left
    assert not caught & 1 << (END - 1)
    assert not Path(f"/proc/{program}").exists()


@pytest.mark.parametrize("error", [OSError, RuntimeError, SystemExit])
def test_what_a_start_raises_reaches_the_thread_that_asked(error):
    def start():
        raise error("on purpose")

    caught = []

    def ask():
        for _ in range(2):  # and the spawner lives on
            try:
                spawn(start)
            except BaseException as raised:  # noqa: BLE001 - what it is is the question
                caught.append(type(raised))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(60)
    assert caught == [error, error]
