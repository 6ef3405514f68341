import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault

pytest.importorskip("gymnasium")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are told by Linux alone")

FOLDER = Path(__file__).parent
ROOT = Path(__file__).parents[3]
ZERO = np.zeros(1, np.float32)


@pytest.fixture(autouse=True)
def import_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))


def kwargs(tmp_path, **options):
    options = {"pids": str(tmp_path / "pids"), **options}
    return {"task": "program_envs:Programs", "size": 16, "episode_steps": 99, "kwargs": options}


def open_pool(tmp_path, *, step_timeout_s=30.0, **options):
    limits = {"max_restarts": 1000, "step_timeout_s": step_timeout_s, "blank_frames": 0, "frozen_frames": 0}
    return EnvPool(source="gym", kwargs=kwargs(tmp_path, **options), count=1, **limits)


def started(tmp_path):
    """The process ids of every start so far: worker, guardian, five programs."""
    return [json.loads(line) for line in (tmp_path / "pids").read_text().splitlines()]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def left(pids, seconds=20.0):
    """Which of the processes run for longer than a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(running, pids)):
        time.sleep(0.01)
    return [pid for pid in pids if running(pid)]


@pytest.mark.parametrize("end", ["worker", "guardian", "both", "hangs", "close"])
def test_nothing_that_an_environment_starts_outlives_its_worker(tmp_path, end):
    with open_pool(tmp_path, hang=end == "hangs", step_timeout_s=1.0) as pool:
        pool.reset({0: 1})
        (first,) = started(tmp_path)
        worker, guardian, *programs = first
        assert worker == pool.pids[0] and len(programs) == 5 and all(map(running, first))
        victims = {"worker": [worker], "guardian": [guardian], "both": [guardian, worker]}.get(end, [])
        if end == "guardian":
            # what hides from the kernel's list and from the environment is out of reach then
            os.kill(programs.pop(2), signal.SIGKILL)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert left([worker] if victims else []) == []  # the kernel ends it soon after its guardian
        if end == "both":
            programs.pop(2)
        if end != "close":
            assert isinstance(pool.step({0: ZERO})[0], Fault)
            assert left([worker, guardian, *programs]) == []
            assert not isinstance(pool.reset({0: 2})[0], Fault)
    assert left([worker, guardian, *programs, *started(tmp_path)[-1]]) == []


def test_nothing_is_left_after_many_restarts(tmp_path):
    with open_pool(tmp_path) as pool:
        for seed in range(int(os.environ.get("RESTARTS", "4"))):
            pool.reset({0: seed})
            os.kill(pool.pids[0], signal.SIGKILL)
            assert pool.step({0: ZERO})[0].kind == "death"
    assert left([pid for pids in started(tmp_path) for pid in pids]) == []


LEARNER = """
import numpy as np
from datamodules.envs.pool import EnvPool
pool = EnvPool(source="gym", kwargs={kwargs!r}, count=1, blank_frames=0, frozen_frames=0)
pool.reset({{0: 0}})
print("ready", flush=True)
pool.step({{0: np.zeros(1, np.float32)}})
"""


@pytest.mark.parametrize("group", [False, True])
def test_nothing_outlives_the_learner(tmp_path, group):
    code = LEARNER.format(kwargs=kwargs(tmp_path, hang=True))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as learner:
        assert learner.stdout.readline() == b"ready\n"
        (os.killpg if group else os.kill)(learner.pid, signal.SIGKILL)
    assert left(started(tmp_path)[0]) == []


def test_programs_have_the_signals_of_a_fresh_process(tmp_path):
    with open_pool(tmp_path, facts=str(tmp_path / "facts")) as pool:
        pool.reset({0: 1})
    facts = json.loads((tmp_path / "facts").read_text())
    # what a shell or a service manager has ignored before stays ignored but for what workers leave
    fresh = ["env", "--default-signal=INT,TERM,USR1", "cat", "/proc/self/status"]
    fresh = subprocess.run(fresh, capture_output=True, text=True, check=True).stdout
    fresh = {line.split(":")[0]: line.split()[1] for line in fresh.splitlines() if line.startswith("Sig")}
    assert {name: facts[name] for name in ("SigBlk", "SigIgn", "SigCgt")} == {
        name: fresh[name] for name in ("SigBlk", "SigIgn", "SigCgt")
    }
    assert (facts["program"], facts["forked"]) == (-signal.SIGTERM, -signal.SIGTERM)
