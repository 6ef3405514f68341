"""The loop of a sweep: start runs while there is room, note how each ended, go on; a signal ends all in order."""

import time
from collections import Counter, deque
from collections.abc import Sequence

from trainers.process.interrupt import Interrupt
from trainers.run_folder.paths import in_use
from trainers.run_folder.read import read_results
from trainers.run_folder.three_digits import three_digits
from trainers.sweeping.engine import Engine, Job, JobLost, StartedJob
from trainers.sweeping.grid import PlannedRun
from trainers.sweeping.log_file import error_of, last_lines, log_path
from trainers.sweeping.record import SweepRecord
from trainers.sweeping.table import SweepTable

POLL_SECONDS = 0.2
MOST_LOST = 3  # times that a run is started again after what it ran on was lost


class Execution:
    """Runs of a sweep under way, each of which is in its record."""

    def __init__(self, record: SweepRecord, engine: Engine, table: SweepTable, interrupt: Interrupt) -> None:
        self._record, self._engine, self._table, self._interrupt = record, engine, table, interrupt
        self._started: dict[str, StartedJob] = {}
        self._waiting: deque[PlannedRun] = deque()
        self._lost = Counter[str]()

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Start what is not finished, as many at once as there are slots, until all have ended.

        Where a signal asks to stop, every run is asked to save and end, and this returns when they have. An exception,
        such as KeyboardInterrupt by a second Ctrl-C, ends them at once.
        """
        planned = {run.name: run for run in runs}
        self._waiting.extend(run for run in runs if not self._note_if_finished(run.name))
        try:
            while self._started or (self._waiting and not self._interrupt.is_set()):
                while len(self._started) < self._engine.slots and (ready := self._next()):
                    self._start(ready)
                time.sleep(POLL_SECONDS)
                # first what has waited longest, as before it was lost
                self._waiting.extendleft(planned[name] for name in reversed(self._note_ended()))
                self._table.update()
                if self._interrupt.is_set():
                    self._stop()
                    return
        finally:
            for name, job in self._started.items():
                job.kill()
                self._record.update(name, state="interrupted")

    def _next(self) -> PlannedRun | None:
        """The first that no process trains: what was killed, or lost from sight, saves for a while yet."""
        ready = next((run for run in self._waiting if not in_use(self._record.root / run.name)), None)
        if ready is not None:
            self._waiting.remove(ready)
        return ready

    def _start(self, run: PlannedRun) -> None:
        # what a run is was compared with what is asked for: its own configuration goes on
        root, name = self._record.root, run.name
        job = Job(name=name, folder=root / name, overrides=run.overrides, log=log_path(root, name))
        self._started[run.name] = self._engine.start(job)
        self._record.update(run.name, state="running", exit_code=None, error=None, last_lines=())

    def _stop(self) -> None:
        """Let every run save and end."""
        self._table.say(f"stopping: {len(self._started)} runs save and end")
        for job in self._started.values():
            job.stop()
        while self._started:
            time.sleep(POLL_SECONDS)
            self._note_ended()
            self._table.update()

    def _note_ended(self) -> list[str]:
        """Note what has ended; returns the names of runs that are to be started again."""
        again = []
        for name, job in list(self._started.items()):
            try:
                code = job.poll()
            except JobLost as lost:
                del self._started[name]
                again += [name] * self._note_lost(name, lost)
                continue
            if code is None:
                continue
            del self._started[name]
            if not self._note_if_finished(name):
                self._note_unfinished(name, code)
            run = self._record.runs[name]
            result = f"return {three_digits(run.return_mean)}" if run.return_mean is not None else run.error or ""
            self._table.say(f"{run.state} {name}" + (f": {result}" if result else ""))
        return again

    def _note_lost(self, name: str, lost: JobLost) -> bool:
        """Whether to start the run again: not where it had finished, nor too often, nor while all are asked to end."""
        if self._note_if_finished(name):
            return False
        self._lost[name] += 1
        if self._interrupt.is_set():
            self._record.update(name, state="interrupted")
        elif self._lost[name] > MOST_LOST:
            error, lines = f"lost {self._lost[name]} times: {lost}", last_lines(log_path(self._record.root, name))
            self._record.update(name, state="failed", error=error, last_lines=lines)
        else:
            self._record.update(name, state="waiting")
        self._table.say(f"lost {name}: {lost}")
        return self._record.runs[name].state == "waiting"

    def _note_if_finished(self, name: str) -> bool:
        results = read_results(self._record.root / name)
        if results.get("status") != "finished":
            return False
        mean = results.get("return_mean")
        self._record.update(name, state="finished", exit_code=0, return_mean=mean, error=None, last_lines=())
        return True

    def _note_unfinished(self, name: str, code: int) -> None:
        log = log_path(self._record.root, name)
        status = read_results(self._record.root / name).get("status")
        if code == 0:
            self._record.update(name, state="stopped", exit_code=0)
        elif self._interrupt.is_set() and (status == "interrupted" or code < 0 or code > 128):
            self._record.update(name, state="interrupted", exit_code=code)
        else:
            error, lines = error_of(log, code), last_lines(log)
            self._record.update(name, state="failed", exit_code=code, error=error, last_lines=lines)
