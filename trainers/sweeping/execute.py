"""The loop of a sweep: start runs while there is room, note how each ended, go on; a signal ends all in order."""

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from trainers.process.interrupt import Interrupt
from trainers.run_folder.paths import in_use
from trainers.run_folder.read import read_results
from trainers.sweeping.grid import PlannedRun
from trainers.sweeping.launcher import Job, Launcher, StartedJob
from trainers.sweeping.log_file import error_of, last_lines
from trainers.sweeping.record import SweepRecord

POLL_SECONDS = 0.2


class Display(Protocol):
    """What a person sees of a sweep."""

    def update(self) -> None:
        """Draw how the runs stand, when it is time to."""
        ...

    def say(self, text: str) -> None:
        """Write a line that stays."""
        ...


class Execution:
    """Runs of a sweep under way.

    Args:
        record: of the sweep, in which every run of `runs` is.
        launcher: starts them.
        display: for a person.
        interrupt: whether a signal asked to stop.
    """

    def __init__(self, record: SweepRecord, launcher: Launcher, display: Display, interrupt: Interrupt) -> None:
        self._record, self._launcher, self._display, self._interrupt = record, launcher, display, interrupt
        self._started: dict[str, StartedJob] = {}

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Start what is not finished, as many at once as there are slots, until all have ended.

        Where a signal asks to stop, every run is asked to save and end, and this returns when they have. An exception,
        such as KeyboardInterrupt by a second Ctrl-C, ends them at once.
        """
        waiting = deque(run for run in runs if not self._note_if_finished(run.name))
        try:
            while self._started or (waiting and not self._interrupt.is_set()):
                while len(self._started) < self._launcher.slots and (ready := self._next(waiting)):
                    self._start(ready)
                time.sleep(POLL_SECONDS)
                self._note_ended()
                self._display.update()
                if self._interrupt.is_set():
                    self._stop()
                    return
        finally:
            for name, job in self._started.items():
                job.kill()
                self._record.update(name, state="interrupted")

    def _next(self, waiting: deque[PlannedRun]) -> PlannedRun | None:
        """The first that no process trains: the runs of a sweep that was killed save for a while yet."""
        ready = next((run for run in waiting if not in_use(self._record.root / run.name)), None)
        if ready is not None:
            waiting.remove(ready)
        return ready

    def _start(self, run: PlannedRun) -> None:
        folder = self._record.root / run.name
        # what a run is was compared with what is asked for: its own configuration goes on
        begun = (folder / "config.yaml").exists()
        arguments = (f"resume={folder}",) if begun else (*run.overrides, f"run_dir={folder}")
        job = Job(name=run.name, arguments=arguments, log=log_path(self._record.root, run.name))
        self._started[run.name] = self._launcher.start(job)
        self._record.update(run.name, state="running", exit_code=None, error=None, last_lines=())

    def _stop(self) -> None:
        """Let every run save and end."""
        self._display.say(f"stopping: {len(self._started)} runs save and end")
        for job in self._started.values():
            job.stop()
        while self._started:
            time.sleep(POLL_SECONDS)
            self._note_ended()
            self._display.update()

    def _note_ended(self) -> None:
        codes = {name: job.poll() for name, job in self._started.items()}
        for name, code in codes.items():
            if code is None:
                continue
            del self._started[name]
            if not self._note_if_finished(name):
                self._note_unfinished(name, code)
            run = self._record.runs[name]
            result = f"return {run.return_mean:.1f}" if run.return_mean is not None else run.error or ""
            self._display.say(f"{run.state} {name}" + (f": {result}" if result else ""))

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


def log_path(root: Path, name: str) -> Path:
    """The file that all a run says is in."""
    return root / "logs" / f"{name}.log"
