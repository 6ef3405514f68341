"""Who started this process, and as one of how many: torchrun, srun or nobody."""

import math
import os
import shutil
import subprocess

from worldmodel.errors import BadValue

REQUEUE_TIMEOUT_S = 60.0


def srun_tasks() -> int:
    """Tasks of the SLURM step that this process is one of; 1 in a batch script or a shell within an allocation."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def launched_ranks() -> dict[str, int]:
    """`devices` of a machine and `num_nodes`, where torchrun or srun has decided on both; else empty."""
    environ = os.environ
    if "TORCHELASTIC_RUN_ID" in environ:
        devices = int(environ["LOCAL_WORLD_SIZE"])
        return {"devices": devices, "num_nodes": int(environ["WORLD_SIZE"]) // devices}
    if srun_tasks() > 1:
        nodes = int(environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES", 1)))
        return {"devices": srun_tasks() // nodes, "num_nodes": nodes}
    return {}


def require_one_process(command: str) -> None:
    """Raise BadValue where a launcher has started several of a command that is not made for that."""
    count = math.prod(launched_ranks().values())
    if count > 1:
        raise BadValue(
            f"{command}: expected one process, got {count} of a launcher; start it without torchrun or srun -n"
        )


def requeue() -> str:
    """Ask SLURM to start this process's job again when there is room; what came of it, in a line."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ.get("SLURM_JOB_ID", "")
    if not job or shutil.which("scontrol") is None:
        return "not requeued: this is no job of SLURM"
    command = ["scontrol", "requeue", job]
    done = subprocess.run(command, capture_output=True, text=True, timeout=REQUEUE_TIMEOUT_S, check=False)
    return f"requeued SLURM job {job}" if done.returncode == 0 else f"not requeued: {done.stderr.strip()}"
