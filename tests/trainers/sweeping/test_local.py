"""Who gets which cores and GPUs, and that runs end with the sweep."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainers.command.configuration import BadConfig
from trainers.sweeping.launcher import Job
from trainers.sweeping.launchers import local


@pytest.fixture(autouse=True)
def no_threads_set(monkeypatch):
    for name in local.THREADS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine with so many cores, and CUDA_VISIBLE_DEVICES."""

    def pretend(cores, gpus=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        if gpus is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)

    return pretend


def slots(**options):
    launcher = local.make(**{"runs": 100, "jobs": None, "devices": 1, "accelerator": "cpu", **options})
    return list(launcher._slots)


def test_a_run_has_a_core_of_its_own(machine):
    machine(3)
    assert [(slot.cores, slot.threads) for slot in slots()] == [((0,), 1), ((1,), 1), ((2,), 1)]
    assert slots()[1].environ()["OMP_NUM_THREADS"] == "1" and slots(runs=2) == slots()[:2]


def test_threads_that_a_person_has_set_are_those_of_runs(machine, monkeypatch):
    machine(8)
    assert {slots(jobs=2)[0].environ()[name] for name in local.THREADS} == {"4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert {slots(jobs=2)[0].environ()[name] for name in local.THREADS} == {"3"}


def test_ranks_have_a_core_each(machine):
    machine(5)
    assert [(slot.cores, slot.threads) for slot in slots(devices=2)] == [((0, 1), 1), ((2, 3), 1)]


def test_jobs_share_all_cores(machine):
    machine(8)
    assert [(slot.cores, slot.threads) for slot in slots(jobs=2)] == [((0, 1, 2, 3), 4), ((4, 5, 6, 7), 4)]
    assert [slot.cores for slot in slots(jobs=16)] == [(core,) for core in range(8)] * 2


def test_a_run_has_a_gpu_of_its_own(machine):
    machine(8, gpus="2,GPU-5a")
    both = slots(accelerator="gpu")
    assert [slot.gpus for slot in both] == [("2",), ("GPU-5a",)]
    assert [slot.cores for slot in both] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert both[1].environ()["CUDA_VISIBLE_DEVICES"] == "GPU-5a"
    assert [slot.gpus for slot in slots(accelerator="gpu", devices=2)] == [("2", "GPU-5a")]
    assert [slot.gpus for slot in slots(accelerator="gpu", jobs=3)] == [("2",), ("GPU-5a",), ("2",)]
    with pytest.raises(BadConfig, match=r"trainer.devices: expected at most 2"):
        slots(accelerator="gpu", devices=3)


def test_a_run_is_no_rank_of_what_started_the_sweep(machine, monkeypatch):
    machine(1)
    for name in local.RANKS:
        monkeypatch.setenv(name, "3")
    assert not set(local.RANKS) & slots()[0].environ().keys()


CHILD = """
import os, signal, sys, time
sys.argv[1:] == ["a=1"] or sys.exit("arguments: %s" % sys.argv)
print(sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"], flush=True)
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(143)))
time.sleep(60)
"""


SWEEP = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trainers.sweeping.launcher import Job
from trainers.sweeping.launchers import local
launcher = local.make(runs=1, jobs=None, devices=1, accelerator="cpu")
launcher.start(Job(name="x", arguments=("a=1",), log=Path({log!r})))
time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A `trainers.fit` that says where it runs, and saves on SIGTERM."""
    (tmp_path / "trainers" / "sweeping" / "launchers").mkdir(parents=True)
    for folder in ("trainers", "trainers/sweeping", "trainers/sweeping/launchers"):
        (tmp_path / folder / "__init__.py").touch()
    child = local.__file__.replace("local.py", "_child.py")
    (tmp_path / "trainers/sweeping/launchers/_child.py").write_text(Path(child).read_text())
    (tmp_path / "trainers" / "fit.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wait_for(log, text):
    end = time.monotonic() + 60
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < end, log.read_text() if log.exists() else "no log"
        time.sleep(0.02)


def test_a_job_runs_in_its_slot_until_it_is_stopped(stand_in):
    core = min(os.sched_getaffinity(0))
    launcher = local.LocalLauncher([local.Slot((core,), 1)])
    log = stand_in / "log"
    job = launcher.start(Job(name="x", arguments=("a=1",), log=log))
    wait_for(log, f"[{core}] 1")
    assert job.poll() is None
    job.stop()
    wait_for(log, "saved")
    end = time.monotonic() + 60
    while job.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert job.poll() == 143 and len(launcher._free) == 1
    again = launcher.start(Job(name="x", arguments=("a=1",), log=log))
    again.kill()
    assert again.poll() == -signal.SIGKILL


def test_a_run_saves_and_ends_when_its_sweep_is_killed(stand_in):
    log = stand_in / "log"
    (stand_in / "sweep.py").write_text(SWEEP.format(log=str(log)))
    sweep = subprocess.Popen([sys.executable, "sweep.py", str(Path(local.__file__).parents[3])], cwd=stand_in)
    wait_for(log, "] 1")
    sweep.kill()
    sweep.wait()
    wait_for(log, "saved")
