"""Who gets which cores and GPUs, and that runs end with the sweep."""

import os
import signal
import subprocess
import sys

import pytest

from tests.trainers.conftest import until
from trainers.command.configuration import BadConfig
from trainers.process.child import THREADS
from trainers.sweeping.engines import _process, local


@pytest.fixture
def machine(monkeypatch, no_threads_set):
    """Pretend a machine with so many cores, and CUDA_VISIBLE_DEVICES."""

    def pretend(cores, gpus=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        if gpus is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)

    return pretend


def slots(**options):
    engine = local.make(**{"runs": 100, "jobs": None, "devices": 1, "accelerator": "cpu", **options})
    return list(engine._slots)


def test_a_run_has_a_core_of_its_own(machine):
    machine(3)
    assert [(slot.cores, slot.threads) for slot in slots()] == [((0,), 1), ((1,), 1), ((2,), 1)]
    assert slots(runs=2) == slots()[:2]


def test_threads_that_a_person_has_set_are_those_of_runs(machine, monkeypatch):
    machine(8)
    assert {slots(jobs=2)[0].environ()[name] for name in THREADS} == {"4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert {slots(jobs=2)[0].environ()[name] for name in THREADS} == {"3"}


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
    assert [slot.gpus for slot in slots(accelerator="gpu", devices=2)] == [("2", "GPU-5a")]
    assert [slot.gpus for slot in slots(accelerator="gpu", jobs=3)] == [("2",), ("GPU-5a",), ("2",)]
    with pytest.raises(BadConfig, match=r"trainer.devices: expected at most 2"):
        slots(accelerator="gpu", devices=3)


SWEEP = """
import sys, time
from pathlib import Path
from trainers.sweeping.engine import Job
from trainers.sweeping.engines import local
engine = local.make(runs=1, jobs=None, devices=1, accelerator="cpu")
engine.start(Job(name="x", folder=Path("x"), overrides=("a=1",), log=Path({log!r})))
time.sleep(60)
"""


def test_a_job_runs_in_its_slot_until_it_is_stopped(stand_in, monkeypatch):
    for name in (*_process.RANKS, "SLURM_NTASKS", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "3")
    core, job = min(os.sched_getaffinity(0)), stand_in.job()
    engine = local.LocalEngine([local.Slot((core,), 1, gpus=("GPU-5a",))])
    started = engine.start(job)
    stand_in.wait_for("ready")
    assert stand_in.said() == {
        "arguments": ["a=1", f"run_dir={job.folder}"],
        "cores": [core],
        "environ": {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "GPU-5a"},
    }
    assert started.poll() is None
    started.stop()
    stand_in.wait_for("saved")
    until(lambda: started.poll() is not None, timeout_s=60, what="the end")
    assert started.poll() == 143 and len(engine._free) == 1
    again = engine.start(job)
    again.kill()
    assert again.poll() == -signal.SIGKILL


def test_a_run_saves_and_ends_when_its_sweep_is_killed(stand_in):
    (stand_in.folder / "sweep.py").write_text(SWEEP.format(log=str(stand_in.log)))
    sweep = subprocess.Popen([sys.executable, "sweep.py"], cwd=stand_in.folder)
    stand_in.wait_for("ready")
    sweep.kill()
    sweep.wait()
    stand_in.wait_for("saved")
