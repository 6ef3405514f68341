"""How many threads updates are computed with, by what else runs on the machine's cores."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from trainers.machine.hardware import usable_cores

Times = tuple[float, float]  # seconds that the process's cores were busy, and that this process computed

STAT = Path("/proc/stat")
WINDOW_S = 2.0  # of updates
TAKEN, FREE = 0.35, 0.15  # of a core, by others: with more a thread gives way, with less one comes back
CALM, MOST_CALM = 3, 48  # windows in a row that must be free for that; twice as many each time that it was too early


def busy_times() -> Times | None:
    """What the kernel has counted so far, of the cores that this process may use; None where it does not say."""
    try:
        lines = STAT.read_text().splitlines()
    except OSError:
        return None
    allowed, ticks = usable_cores(), 0
    for line in lines:
        name, *fields = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in allowed:
            user, nice, system, _idle, _io, irq, softirq = map(int, fields[:7])
            ticks += user + nice + system + irq + softirq
    return ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


class ThreadsByLoad(pl.Callback):
    """As many threads as there are cores that no other program holds.

    The threads of an update wait for one another thousands of times. Where one of two has to share its core, every
    wait lasts until that core is given to it, and an update takes 3 to 13 times as long as with one thread
    (docs/log.md, "Two threads and a busy core"). Sums are rounded differently by another number of threads, so a run is
    repeatable to the bit on a machine that nobody else uses, or where OMP_NUM_THREADS says how many there are.

    Args:
        most: threads where nobody else computes.
        say: told of every change.
        times, cores: what is measured of the machine.
    """

    def __init__(
        self,
        most: int,
        *,
        say: Callable[[str], object],
        times: Callable[[], Times | None] = busy_times,
        cores: int | None = None,
    ) -> None:
        self.most = self.threads = most
        self._say, self._times, self._cores = say, times, cores or len(usable_cores())
        self._before: Times | None = None
        self._began = self._elapsed_s = self._others_s = 0.0
        self._calm, self._needed = 0, CALM

    def on_train_batch_start(self, *_: Any) -> None:
        """An update begins: what others compute meanwhile counts, not what this run's environments do between two."""
        self._before, self._began = self._times(), time.monotonic()

    def on_train_batch_end(self, *_: Any) -> None:
        """It ends; once in a while the number of threads is set anew."""
        after = self._times()
        if after is None or self._before is None:
            return
        busy_s, own_s = (now - then for now, then in zip(after, self._before, strict=True))
        self._others_s += busy_s - own_s
        self._elapsed_s += time.monotonic() - self._began
        if self._elapsed_s >= WINDOW_S:
            self.decide(self._others_s / self._elapsed_s)
            self._elapsed_s = self._others_s = 0.0

    def decide(self, others: float) -> None:
        """Fewer threads at once where other programs held cores in the last window, one more after some calm time."""
        fitting = max(1, int(self._cores - others + TAKEN))
        if fitting < self.threads:
            self._set(fitting, others)
            self._needed = min(2 * self._needed, MOST_CALM)
        elif self.threads < self.most and self.threads + 1 <= self._cores - others + FREE:
            self._calm += 1
            if self._calm >= self._needed:
                self._set(self.threads + 1, others)
        else:
            self._calm = 0

    def _set(self, threads: int, others: float) -> None:
        self.threads, self._calm = threads, 0
        torch.set_num_threads(threads)
        self._say(f"threads: {threads} of {self.most}, other programs hold {max(others, 0):.1f} of {self._cores} cores")
