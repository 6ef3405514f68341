"""Runs as jobs of SLURM, one each, submitted by submitit.

The sweep's folder and this project are at the same path on all nodes. A job whose time is up, or that gives way to
another, lets its run save and is queued again.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.envs.errors import MissingPackage
from datamodules.storage.durable import write_atomic
from trainers.command.configuration import BadConfig, finite_number, whole_number
from trainers.process.child import thread_variables
from trainers.sweeping.engine import Job, JobLost
from trainers.sweeping.engines._process import RunProcess
from trainers.sweeping.log_file import add_line

POLL_SECONDS = 0.5
SAVE_SECONDS = 120  # between the notice that a job's time is up and its end
SAVED = 128 + 15  # the exit code of a run that was told to save and end
# ends that say nothing of the run
LOST_STATES = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")
CLUSTERS = ("slurm", "local")
OWN = ("minutes", "gpus", "cpus", "memory_gb", "requeues", "cluster")
SBATCH = ("partition", "account", "qos", "constraint", "exclude", "nodelist", "gres", "setup")
ASK_SECONDS = 5.0  # between questions to sacct about jobs that were cancelled
LATE_SECONDS = 15.0  # by which a result may be seen here after its job has ended


class RunInJob:
    """What a job runs: submitit calls it, and `checkpoint` when the job is to be queued again.

    environ: variables of the run. cwd: folder that its relative paths are of.
    """

    def __init__(self, job: Job, *, environ: Mapping[str, str], cwd: Path) -> None:
        self._job, self._environ, self._cwd = job, environ, cwd
        self._told = False

    def __call__(self) -> int:
        """The exit code of the run."""
        self._run = RunProcess(self._job.arguments, log=self._job.log, environ=self._environ, cwd=self._cwd)
        # SLURM tells the job's own process alone, where submitit ignores it
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        # not wait(): a signal that interrupted it could not ask for the process again
        while (code := self._run.poll()) is None:
            time.sleep(POLL_SECONDS)
        return code

    def checkpoint(self) -> Any:
        """Let the run save and end, within a signal's handler; returns what the job is to do when it starts again."""
        import submitit

        self._stop()
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self._run.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(RunInJob(self._job, environ=self._environ, cwd=self._cwd))

    def _stop(self) -> None:
        """Once: a second SIGTERM ends a run before it has saved."""
        if not self._told:
            self._told = True
            self._run.stop()


class SlurmJob:
    """A run that was submitted as a job of submitit."""

    def __init__(self, submitit: ModuleType, job: Any, log: Path) -> None:
        self._errors = submitit.core.utils.FailedJobError
        self._job, self._log = job, log
        self._told, self._ask_at = False, 0.0
        self._over_at: float | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal, None while it waits or runs; raises JobLost."""
        # submitit asks by itself every ten minutes: a job that never ran leaves no result to be seen before
        ask = self._told and time.monotonic() >= self._ask_at
        if ask:
            self._ask_at = time.monotonic() + ASK_SECONDS
        if not self._job.done(force_check=ask):
            return None
        if not self._job.paths.result_pickle.exists():
            return self._without_result()
        try:
            code = int(self._job.result())
        except self._errors as error:
            add_line(self._log, f"engine=slurm: {error}")
            return 1
        if code == SAVED and not self._told:
            raise JobLost(f"job {self._job.job_id} was told to end")
        return code

    def stop(self) -> None:
        """Cancel the job: SLURM lets what runs in it save, for as long as its KillWait says."""
        self._told = True
        self._job.cancel(check=False)

    def kill(self) -> None:
        """Cancel the job."""
        self.stop()

    def _without_result(self) -> int | None:
        if self._told:
            return SAVED
        self._over_at = self._over_at or time.monotonic()
        if time.monotonic() < self._over_at + LATE_SECONDS:
            return None
        state = self._job.state
        if state.partition(" ")[0] in LOST_STATES:
            raise JobLost(f"job {self._job.job_id} ended: {state}")
        add_line(self._log, f"engine=slurm: job {self._job.job_id} ended: {state}: {self._job.stderr()}")
        return 1


class SlurmEngine:
    """Submits jobs, whose scripts and results are in a folder beside the runs' logs.

    cluster, options: of submitit's executor. requeues: how often a job may be queued again because its time was up.
    environ: variables of each run. slots: jobs that may be queued or running at one time.
    """

    def __init__(
        self, cluster: str, options: Mapping[str, Any], *, requeues: int, environ: Mapping[str, str], slots: int
    ) -> None:
        self._cluster, self._options, self._requeues = cluster, options, requeues
        self._environ, self._slots = environ, slots

    @property
    def slots(self) -> int:
        """Jobs at once."""
        return self._slots

    def start(self, job: Job) -> SlurmJob:
        """Submit the job, or find again the one that an earlier call of the sweep has left in the queue."""
        import submitit

        folder, limit = job.log.parent / self._cluster, {f"{self._cluster}_max_num_timeout": self._requeues}
        note = folder / f"{job.name}.job"
        if self._cluster == "slurm" and note.exists():
            earlier: Any = submitit.SlurmJob(folder=folder, job_id=note.read_text())
            if not earlier.paths.result_pickle.exists() and _is_queued(earlier.job_id, job.name):
                return SlurmJob(submitit, earlier, job.log)
        executor = submitit.AutoExecutor(folder=folder, cluster=self._cluster, **limit)
        executor.update_parameters(name=job.name, **self._options)
        submitted = executor.submit(RunInJob(job, environ=self._environ, cwd=Path.cwd()))
        write_atomic(note, submitted.job_id.encode())
        return SlurmJob(submitit, submitted, job.log)

    def describe(self) -> str:
        """How many jobs at once."""
        return f"{self.slots} jobs of {self._cluster} at once"


def make(
    *,
    runs: int,
    jobs: int | None,
    devices: int,
    accelerator: str,
    minutes: str = "1440",
    gpus: str | None = None,
    cpus: str | None = None,
    memory_gb: str | None = None,
    requeues: str = "20",
    cluster: str = "slurm",
    **sbatch: str,
) -> SlurmEngine:
    """Jobs for runs of `devices` ranks.

    Args:
        minutes: after which a job saves and is queued again.
        gpus, cpus: of each job; one for each rank by default, GPUs only where this machine has some.
        memory_gb: of each job.
        requeues: how often a job may be queued again because its time was up.
        cluster: slurm, or local for jobs of this machine.
        sbatch: partition, account, qos, constraint and others of SBATCH.

    Raises:
        MissingPackage: submitit is not installed.
        BadConfig: a value out of range, an option that there is not, or a machine without SLURM's commands.
    """
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise MissingPackage("submitit is not installed: run `pip install 'worldmodel[slurm]'`") from error
    if cluster not in CLUSTERS:
        raise BadConfig(f"engine.cluster: expected {' or '.join(CLUSTERS)}, got {cluster!r}")
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise BadConfig("engine: expected a machine that submits to SLURM, got one without sbatch and srun")
    for name in sbatch:
        if name not in SBATCH:
            raise BadConfig(f"engine.{name}: expected an option of {', '.join((*OWN, *SBATCH))}")
    each_cpus = whole_number("engine.cpus", cpus) if cpus else devices
    each_gpus = whole_number("engine.gpus", gpus, least=0) if gpus else devices * (accelerator == "gpu")
    options: dict[str, Any] = {"timeout_min": whole_number("engine.minutes", minutes), "cpus_per_task": each_cpus}
    options |= {"gpus_per_node": each_gpus} if each_gpus else {}
    options |= {"mem_gb": finite_number("engine.memory_gb", memory_gb, above=0)} if memory_gb else {}
    options["slurm_signal_delay_s"] = SAVE_SECONDS
    options |= {f"slurm_{name}": [text] if name == "setup" else text for name, text in sbatch.items()}
    limit = whole_number("engine.requeues", requeues, least=0)
    environ = thread_variables(max(1, each_cpus // devices))
    return SlurmEngine(cluster, options, requeues=limit, environ=environ, slots=min(runs, jobs or runs))


def _is_queued(number: str, name: str) -> bool:
    """Whether the queue has that job, waiting or running, and by that name: numbers begin anew on another cluster."""
    command = ["squeue", "--noheader", f"--jobs={number}", "--format=%j"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == name
