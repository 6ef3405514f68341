"""Jobs of SLURM: submitted, told that their time is up, queued again, cancelled, lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.envs.errors import MissingPackage
from tests.trainers.conftest import until
from trainers.command.configuration import BadConfig
from trainers.sweeping.engine import JobLost
from trainers.sweeping.engines import slurm


def engine(**options):
    return slurm.make(**{"runs": 3, "jobs": None, "devices": 1, "accelerator": "cpu", **options})


@pytest.fixture
def state(stand_in, monkeypatch):
    """The folder of a SLURM whose commands come first in PATH."""
    commands, folder = stand_in.folder / "bin", stand_in.folder / "state"
    commands.mkdir()
    folder.mkdir()
    text = Path(__file__).with_name("fake_slurm.py").read_text()
    for name in ("sbatch", "srun", "sacct", "scancel", "scontrol", "squeue"):
        (commands / name).write_text(f"#!{sys.executable}\n{text}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    pytest.importorskip(
        "submitit"
    ).slurm.slurm.SlurmJob.watcher.clear()  # which remembers jobs of other tests by their numbers
    return folder


def ended(started):
    codes = []
    until(lambda: codes.append(started.poll()) or codes[-1] is not None, timeout_s=60, what="the end of the job")
    return codes[-1]


def test_a_job_has_what_was_asked_for_and_ends_with_its_run(stand_in, state):
    options = {"partition": "long", "minutes": "90", "gpus": "1", "cpus": "4", "memory_gb": "8", "setup": "echo begun"}
    started = engine(**options, devices=2).start(stand_in.job())
    stand_in.wait_for("ready")
    assert stand_in.said()["environ"] == {"OMP_NUM_THREADS": "2"}  # half of the CPUs, and no rank of the job
    assert started.poll() is None
    script = (state / "1.sh").read_text()
    flags = ("partition=long", "time=90", "gpus-per-node=1", "cpus-per-task=4", "mem=8GB", "job-name=x")
    assert all(f"#SBATCH --{flag}\n" in script for flag in (*flags, "signal=USR2@120")), script
    assert "\necho begun\n" in script
    (stand_in.folder / "x" / "end").touch()
    assert ended(started) == 0


def test_a_job_whose_time_is_up_saves_and_is_queued_again(stand_in, state):
    started = engine().start(stand_in.job())
    stand_in.wait_for("ready")
    subprocess.run(["scancel", "1", "--signal", "SIGUSR2"], check=True)
    stand_in.wait_for("ready", times=2)
    assert stand_in.text().count("saved") == 1 and stand_in.said()["arguments"] == [f"resume={stand_in.folder / 'x'}"]
    (stand_in.folder / "x" / "end").touch()
    assert ended(started) == 0


def test_a_job_that_is_told_to_end_saves(stand_in, state):
    started = engine().start(stand_in.job())
    stand_in.wait_for("ready")
    started.stop()
    assert ended(started) == 143 and "saved" in stand_in.text()


def test_a_sweep_that_was_killed_finds_its_job_again(stand_in, state):
    engine().start(stand_in.job())
    stand_in.wait_for("ready")
    again = engine().start(stand_in.job())
    assert again.poll() is None and len([*state.glob("*.sh")]) == 1
    (stand_in.folder / "x" / "end").touch()
    assert ended(again) == 0
    engine().start(stand_in.job()).kill()  # that one has left the queue
    assert len([*state.glob("*.sh")]) == 2


def test_another_clusters_job_of_that_number_is_not_its_own(stand_in, state):
    assert not slurm._is_queued("1", stand_in.job().name)
    engine().start(stand_in.job())
    assert slurm._is_queued("1", stand_in.job().name) and not slurm._is_queued("1", "y")


def test_a_job_that_gives_way_to_another_is_lost_and_not_failed(stand_in, state):
    started = engine().start(stand_in.job())
    stand_in.wait_for("ready")
    subprocess.run(["scancel", "1"], check=True)
    with pytest.raises(JobLost, match="job 1 was told to end"):
        ended(started)


@pytest.mark.parametrize("said", ["NODE_FAIL", "OUT_OF_MEMORY"])
def test_a_job_without_a_result_is_lost_with_its_node_and_else_has_failed(stand_in, state, monkeypatch, said):
    started = engine().start(stand_in.job())
    stand_in.wait_for("ready")
    subprocess.run(["scancel", "1", "--signal", "SIGKILL"], check=True)
    (state / "1.state").write_text(said)
    started._job.watcher.update()
    assert started.poll() is None
    monkeypatch.setattr(slurm, "LATE_SECONDS", 0.0)
    if said == "NODE_FAIL":
        with pytest.raises(JobLost, match="job 1 ended: NODE_FAIL"):
            started.poll()
    else:
        assert started.poll() == 1 and "engine=slurm: job 1 ended: OUT_OF_MEMORY" in stand_in.text()


def test_jobs_of_this_machine(stand_in):
    pytest.importorskip("submitit")
    started = engine(cluster="local").start(stand_in.job())
    stand_in.wait_for("ready")
    (stand_in.folder / "x" / "end").touch()
    assert ended(started) == 0 and engine(cluster="local", jobs=2).describe() == "2 jobs of local at once"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": "1:00"}, "engine.minutes: expected a whole number"),
        ({"gpus": "0.5"}, "engine.gpus: expected a whole number"),
        ({"cluster": "lsf"}, "engine.cluster: expected slurm or local"),
        ({"partitoin": "long"}, "engine.partitoin: expected an option of minutes, .*partition"),
        ({"cluster": "slurm"}, "without sbatch and srun"),
    ],
)
def test_what_cannot_be_submitted_is_refused(options, message, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadConfig, match=message):
        engine(**{"cluster": "local", **options})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingPackage, match=r"pip install 'worldmodel\[slurm\]'"):
        engine()
