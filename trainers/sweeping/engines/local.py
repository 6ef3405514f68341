"""Runs as processes of this machine: each with cores of its own, and with GPUs of its own where it computes on them."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from trainers.command.configuration import BadConfig
from trainers.machine.hardware import usable_cores
from trainers.process.child import thread_variables
from trainers.sweeping.engine import Job
from trainers.sweeping.engines._process import RunProcess


@dataclass(frozen=True, slots=True)
class Slot:
    """What one run at a time has: cores, threads of each of its ranks, and GPUs (empty on a CPU)."""

    cores: tuple[int, ...]
    threads: int
    gpus: tuple[str, ...] = ()

    def environ(self) -> dict[str, str]:
        """What a run in this slot has beside the variables of this process."""
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return thread_variables(self.threads) | gpus


class LocalJob(RunProcess):
    """A run's process and the slot that it holds until it has ended."""

    def __init__(self, job: Job, slot: Slot, free: deque[Slot]) -> None:
        super().__init__(job.arguments, log=job.log, environ=slot.environ(), cores=slot.cores)
        self._slot, self._free, self._ended = slot, free, False

    def poll(self) -> int | None:
        """The exit code, negative for a signal, None while it runs."""
        code = super().poll()
        if code is not None and not self._ended:
            self._ended = True
            self._free.append(self._slot)
        return code


class LocalEngine:
    """Starts each job in a free slot, in a session of its own: Ctrl-C reaches the sweep alone, which ends its runs."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free, self._slots = deque(slots), list(slots)

    @property
    def slots(self) -> int:
        """Runs at once."""
        return len(self._slots)

    def start(self, job: Job) -> LocalJob:
        """Start the job's process."""
        return LocalJob(job, self._free.popleft(), self._free)

    def describe(self) -> str:
        """How many runs at once, on what."""
        slot = self._slots[0]
        cores = f"{len(slot.cores)} core{'s' if len(slot.cores) > 1 else ''}"
        gpus = f"GPU {', '.join(dict.fromkeys(gpu for one in self._slots for gpu in one.gpus))}, " if slot.gpus else ""
        return f"{self.slots} at once, {gpus}{cores} each"


def make(*, runs: int, jobs: int | None, devices: int, accelerator: str) -> LocalEngine:
    """Slots for runs of `devices` ranks each: on a CPU of one core a rank, on GPUs of one GPU a rank.

    With `jobs`, all cores are shared among that many, and so are the GPUs, on which several runs then may be.

    Raises:
        BadConfig: a run needs more devices than there are.
    """
    cores = usable_cores()
    gpus = _gpus() if accelerator == "gpu" else []
    if accelerator == "gpu" and len(gpus) < devices:
        raise BadConfig(f"trainer.devices: expected at most {len(gpus)}, the GPUs of this machine, got {devices}")
    groups = _chunks(gpus, devices)
    if jobs is None:
        count = len(groups) or max(1, len(cores) // devices)
        each = len(cores) // count if groups else min(devices, len(cores))
    else:
        count, each = jobs, len(cores) // jobs
    each = max(1, each)
    shares = _chunks(cores, each) or [cores]
    threads = each if groups else max(1, each // devices)
    slots = [
        Slot(tuple(shares[i % len(shares)]), threads, tuple(groups[i % len(groups)]) if groups else ())
        for i in range(count)
    ]
    return LocalEngine(slots[: max(1, runs)])


def _chunks(items: Sequence, size: int) -> list:
    """Groups of `size` neighbours, without a rest that is smaller."""
    return [items[start : start + size] for start in range(0, len(items) - size + 1, size)]


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
