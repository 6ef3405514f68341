"""A planner in a process of its own, killed and started again when it hangs or dies; nobody waits for it too long."""

import json
import select
import socket
import struct
import subprocess
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from trainers.bundle.bundle import Bundle
from trainers.deployment.planner_messages import Sizes, pack_request, unpack_answer
from trainers.deployment.planning import Planned, Request
from trainers.process.child import start_module
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.errors import UserError

START_S = 120.0  # that a process may take until it is tuned
RETURN_S = 0.002  # of the time until an answer is due, for its way back
PAUSES_S = (0.0, 1.0, 5.0, 30.0)  # before it is started again, by how often in a row it failed


class PlannerFailed(UserError):
    """The planner's process did not start."""


class PlannerProcess:
    """A `Planning` whose plans come from another process.

    Args:
        folder: the bundle's.
        sha256: of its manifest, as this process verified it.
        sizes: of latents and plans.
        budget_s: seconds for a plan, to which the process tunes itself.
        hang_s: seconds without an answer after which it is killed.

    Raises:
        PlannerFailed: it did not become ready.
    """

    program = "trainers.deployment.planner_process"

    def __init__(self, folder: Path, *, sha256: str, sizes: Sizes, budget_s: float, hang_s: float) -> None:
        self._arguments = [str(folder), repr(budget_s), sha256]
        self._sizes, self._hang_s = sizes, hang_s
        self._lock, self._number, self._failures = threading.Lock(), 0, 0
        self._asked_at: float | None = None
        self._pipe: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._starting: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        if error := self._start():
            raise PlannerFailed(f"planner: its process did not start: {error}")

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def ready(self) -> bool:
        """Whether it can be asked."""
        return self._pipe is not None

    def ask(self, request: Request, *, until: float) -> Planned | None:
        """As `Planning` says; several threads may ask, one after the other."""
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            return None
        try:
            if self._pipe is None or self._hangs():
                return None
            if not _takes_more(self._pipe, until):
                return None  # it reads nothing: `_hangs` ends that
            self._number += 1
            self._pipe.send_bytes(pack_request(self._number, until - RETURN_S, request))
            if self._asked_at is None:
                self._asked_at = time.monotonic()
            return self._answer(self._pipe, until)
        except (OSError, EOFError, ValueError, struct.error):
            self._restart()
            return None
        finally:
            self._lock.release()

    def close(self) -> None:
        """Kill the process."""
        self._closed = True
        with self._lock:
            self._end()
        if self._starting is not None:
            self._starting.kill()

    def _answer(self, pipe: Connection, until: float) -> Planned | None:
        while pipe.poll(max(0.0, until - time.monotonic())):
            number, planned = unpack_answer(pipe.recv_bytes(maxlength=1_000_000), self._sizes)
            if number == self._number:  # else the late answer to an earlier one
                self._asked_at, self._failures = None, 0
                return planned
        return None

    def _hangs(self) -> bool:
        if self._asked_at is None or time.monotonic() - self._asked_at < self._hang_s:
            return False
        self._restart()
        return True

    def _restart(self) -> None:
        """End the process and start another one, in a thread: the robot goes on meanwhile."""
        self._end()
        self.restarts += 1
        self._failures += 1
        threading.Thread(target=self._start_again, daemon=True).start()

    def _start_again(self) -> None:
        time.sleep(PAUSES_S[min(self._failures - 1, len(PAUSES_S) - 1)])
        while not self._closed and self._start():
            self._failures += 1
            time.sleep(PAUSES_S[min(self._failures, len(PAUSES_S) - 1)])

    def _start(self) -> str:
        """Start and wait until it is tuned; returns why it is not."""
        ours, theirs = socket.socketpair()
        # in a group of its own: what a terminal sends, also while it loads torch, is the parent's to answer
        process = start_module(
            self.program, *self._arguments, str(theirs.fileno()), pass_fds=[theirs.fileno()], process_group=0
        )
        self._starting = process
        theirs.close()
        pipe = Connection(ours.detach())
        try:
            said = json.loads(pipe.recv_bytes(maxlength=100_000)) if pipe.poll(START_S) else {"error": "no answer"}
        except (OSError, EOFError, ValueError) as error:
            said = {"error": f"it ended: {error!r}"}
        self._starting = None
        if "error" in said or self._closed:
            process.kill()
            process.wait()
            pipe.close()
            return str(said.get("error", ""))
        self._process, self._asked_at = process, None
        self._pipe = pipe  # the last: from now on it can be asked
        return ""

    def _end(self) -> None:
        pipe, process = self._pipe, self._process
        self._pipe = self._process = None
        self._asked_at = None
        if process is not None:
            process.kill()
            process.wait()
        if pipe is not None:
            pipe.close()


def start_planner_process(bundle: Bundle, agent: LatentMPC, *, budget_s: float, period_s: float) -> PlannerProcess:
    """The planner of a bundle's agent in a process of its own, which counts as hung after ten periods, and a second.

    Raises PlannerFailed where it does not become ready.
    """
    sizes, hang_s = Sizes.of(agent), max(1.0, 10 * period_s)
    return PlannerProcess(bundle.folder, sha256=bundle.sha256, sizes=sizes, budget_s=budget_s, hang_s=hang_s)


def _takes_more(pipe: Connection, until: float) -> bool:
    """Whether a request can be sent without waiting beyond `until`."""
    waiting = select.poll()  # select.select takes no descriptors beyond 1,023
    waiting.register(pipe.fileno(), select.POLLOUT)
    return bool(waiting.poll(1e3 * max(0.0, until - time.monotonic())))
