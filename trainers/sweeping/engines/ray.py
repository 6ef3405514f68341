"""Runs on the nodes of a Ray cluster, each in an actor that starts it as a process and watches it.

All nodes need this project installed and the sweep's folder at the same path. The cluster is that of RAY_ADDRESS, else
this machine's (`ray start`), else one of this machine alone that lives as long as the sweep.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.ray_envs.cluster import connect
from trainers.command.configuration import finite_number
from trainers.process.child import thread_variables
from trainers.sweeping.engine import Job, JobLost
from trainers.sweeping.engines._process import RunProcess
from trainers.sweeping.log_file import add_line

KILL_S = 5.0
ANSWER_S = 5.0  # in which an actor that has room says that it runs


class RayJob:
    """A run and the actor that has its process.

    place: hands the run to an actor of `RunProcess`, which may wait for room in the cluster.
    """

    def __init__(self, ray: ModuleType, place: Callable[[], Any], log: Path) -> None:
        self._ray, self._place, self._log = ray, place, log
        self._code: int | None = None
        self._began = False
        self._hand_in()

    def poll(self) -> int | None:
        """The exit code, negative for a signal, None while it waits or runs; raises JobLost with its node."""
        self._began = self._began or self._has_begun()
        if self._code is None and self._is_ready(self._ended):
            self._code = self._result()
        return self._code

    def stop(self) -> None:
        """Ask the run to save and end; one that waits for room is given up."""
        # a run may have begun of which a busy cluster has not said so yet: it must not be killed for that
        if self._ray.wait([self._started], timeout=ANSWER_S)[0]:
            self._actor.stop.remote()
        else:
            self.kill()

    def kill(self) -> None:
        """End the run at once."""
        if self._is_ready(self._started):
            self._ray.wait([self._actor.kill.remote()], timeout=KILL_S)
        self._ray.kill(self._actor)
        self._code = -9

    def _hand_in(self) -> None:
        self._actor = self._place()
        self._started: Any = self._actor.poll.remote()
        self._ended: Any = self._actor.wait.remote()

    def _is_ready(self, ref: Any) -> bool:
        return bool(self._ray.wait([ref], timeout=0)[0])

    def _has_begun(self) -> bool:
        if self._is_ready(self._started):
            with suppress(self._ray.exceptions.RayActorError):
                self._ray.get(self._started)
                return True
        return False

    def _result(self) -> int | None:
        try:
            code = int(self._ray.get(self._ended))
        except self._ray.exceptions.RayActorError as error:
            if error.actor_init_failed:
                add_line(self._log, f"engine=ray: {error}")
                return 1
            # what is out of reach may live on: it ends when it is in reach again
            self._ray.kill(self._actor)
            if self._began:
                raise JobLost(str(error).strip().splitlines()[0]) from error
            self._hand_in()  # it was given to a node of which the cluster does not know yet that it is gone
            return None
        self._ray.kill(self._actor)  # so that what it held is free
        return code


class RayEngine:
    """Starts each job where the cluster has room for it.

    cpus, gpus, environ: of each run; a share of a GPU lets several use one. jobs: at once, None for all that fit.
    """

    def __init__(self, *, cpus: float, gpus: float, environ: Mapping[str, str], runs: int, jobs: int | None) -> None:
        self._ray = connect()
        self._room, self._environ, self._runs, self._jobs = {"CPU": cpus, "GPU": gpus}, environ, runs, jobs
        self._actors = self._ray.remote(RunProcess).options(
            num_cpus=cpus, num_gpus=gpus, max_concurrency=4, scheduling_strategy="SPREAD"
        )

    @property
    def slots(self) -> int:
        """Runs at once: as the cluster is now, of which nodes may leave and to which others may come."""
        return min(self._runs, max(1, self._fitting())) if self._jobs is None else self._jobs

    def _fitting(self) -> int:
        """Runs that the nodes of now have room for while nothing else runs."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = {name: count for name, count in self._room.items() if count}
        return sum(min(int(node.get(name, 0.0) / count) for name, count in needs.items()) for node in nodes)

    def start(self, job: Job) -> RayJob:
        """Hand the job to the cluster."""
        facts = {"log": job.log, "environ": self._environ, "cwd": Path.cwd()}
        return RayJob(self._ray, lambda: self._actors.remote(job.arguments, **facts), job.log)

    def describe(self) -> str:
        """How many runs at once, on what, and whether they have to wait for a larger node than there is."""
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        share = ", ".join(f"{count:g} {name}" for name, count in self._room.items() if count)
        waits = "" if self._fitting() else "; no node has as much: runs wait until one comes"
        return f"{self.slots} at once on {nodes} node{'s' if nodes > 1 else ''} of Ray, {share} each{waits}"


def make(
    *, runs: int, jobs: int | None, devices: int, accelerator: str, cpus: str | None = None, gpus: str | None = None
) -> RayEngine:
    """A cluster's room for runs of `devices` ranks.

    Args:
        cpus: of each run; one for each rank by default.
        gpus: of each run, 0.5 for two to one GPU; one for each rank by default where this machine has GPUs, else none.

    Raises:
        MissingPackage: Ray is not installed.
        BadConfig: no number.
        NoCluster: there is none at RAY_ADDRESS.
    """
    each_cpus = finite_number("engine.cpus", cpus, above=0) if cpus else float(devices)
    each_gpus = finite_number("engine.gpus", gpus, least=0) if gpus else float(devices * (accelerator == "gpu"))
    environ = thread_variables(max(1, int(each_cpus) // devices))
    return RayEngine(cpus=each_cpus, gpus=each_gpus, environ=environ, runs=runs, jobs=jobs)
