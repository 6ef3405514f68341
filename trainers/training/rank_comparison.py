"""Whether several ranks are faster than one of them would be, by a trial in the first minutes of a run."""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import distributed

from trainers.process.distributed import gather_over_ranks, rank_count
from trainers.training.module import WorldModelModule
from trainers.training.run_context import RunContext
from worldmodel.interfaces import Batch

LEAST_UPDATES = 20  # of this session, before what they and the episodes between them took is compared
REPEATS, WARM_UP = 3, 1


@dataclass(frozen=True, slots=True)
class RankTimes:
    """Seconds that go into one update of the global batch."""

    ranks: int
    alone_s: float  # gradients of the whole batch, on one rank while the others wait
    share_s: float  # gradients of a rank's share, on all ranks at once, the slowest rank's
    reduce_s: float  # one all-reduce of all gradients
    acting_s: float  # collection between two updates, of every rank's own episodes

    @property
    def speedup(self) -> float:
        """How many times as fast the ranks are as one: it would make all updates and play all episodes."""
        return (self.alone_s + self.ranks * self.acting_s) / (self.share_s + self.reduce_s + self.acting_s)

    def rounded(self) -> dict[str, float]:
        """What a run's results say."""
        return {name: float(f"{number:.3g}") for name, number in {**asdict(self), "speedup": self.speedup}.items()}

    def warning(self) -> str | None:
        """What to do instead, where one rank would be at least as fast."""
        if self.speedup > 1:
            return None
        update_ms, reduce_ms, alone_ms = (1e3 * s for s in (self.share_s + self.reduce_s, self.reduce_s, self.alone_s))
        return (
            f"warning: {self.ranks} ranks are {self.speedup:.2f} times as fast as one: an update takes {update_ms:.3g} "
            f"ms, {reduce_ms:.3g} of them to reduce gradients, and {alone_ms:.3g} on one rank. Use trainer.devices=1 "
            "and give the other devices seeds and tasks: python -m trainers.sweep task=A,B seed=0,1,2"
        )


class RankComparison:
    """Waits until a run is under way, then makes the trial once; learning is as it would be without."""

    def __init__(self, run: RunContext, module: WorldModelModule) -> None:
        self._run, self._module = run, module
        self._batch: Batch | None = None
        self._since: tuple[int, float] | None = None  # updates and seconds of acting; None where no trial is to come
        self.found: RankTimes | None = None

    def begin(self) -> None:
        """Count from here: what a resumed run did before may have been done by other ranks."""
        self._since = (self._module.updates, self._acting_s()) if rank_count() > 1 else None

    def keep(self, batch: Batch) -> None:
        """Take a batch to make the trial with."""
        if self._since is not None:
            self._batch = batch

    def due(self) -> bool:
        """Whether this session made enough updates; the same on all ranks."""
        enough = self._since is not None and self._module.updates - self._since[0] >= LEAST_UPDATES
        return enough and self._batch is not None

    def warning(self) -> str | None:
        """Make the trial, on all ranks; no random number of others is used. What to say of it, if anything."""
        assert self._since is not None and self._batch is not None
        batch, device, ranks = self._batch, self._module.device, rank_count()
        updates, acting_s = self._module.updates - self._since[0], self._acting_s() - self._since[1]
        self._since = self._batch = None
        trial = type(self._module).of(self._run.config, copy.deepcopy(self._module.agent).train())
        sizes = [weight.numel() for weight in trial.parameters() if weight.requires_grad]
        gradients = torch.zeros(sum(sizes), device=device)

        def learn(windows: Batch) -> None:
            trial.zero_grad()
            with self._run.trainer.precision_plugin.train_step_context():
                loss = trial.losses(windows).total
            loss.backward()  # type: ignore[no-untyped-call]

        # the whole batch may be more than one device holds: then there is nothing to compare
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            share_s = _seconds(lambda: learn(batch), device)
            reduce_s = _seconds(lambda: distributed.all_reduce(gradients), device)
            alone_s = 0.0
            if self._run.trainer.is_global_zero:
                with _all_threads(self._run.trainer.num_devices):
                    alone_s = _seconds(lambda: learn(batch.repeated(ranks)), device)
        times = gather_over_ranks((share_s, reduce_s, acting_s / updates, alone_s))
        shares, reduces, acting, alone = zip(*times, strict=True)
        if not np.isfinite([*shares, alone[0]]).all():
            return None
        self.found = RankTimes(ranks, alone[0], max(shares), max(reduces), float(np.mean(acting)))
        return self.found.warning()

    def _acting_s(self) -> float:
        seconds = self._module.clock.seconds
        return seconds["env"] + seconds["plan"]


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Median of several calls, finished on their device; infinite where that has too little memory."""
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        try:
            call()
        except torch.OutOfMemoryError:
            return math.inf
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[WARM_UP:]))


@contextmanager
def _all_threads(ranks_here: int) -> Iterator[None]:
    """The threads that one rank of this machine would have to itself."""
    mine = torch.get_num_threads()
    torch.set_num_threads(mine if "OMP_NUM_THREADS" in os.environ else mine * ranks_here)
    try:
        yield
    finally:
        torch.set_num_threads(mine)
