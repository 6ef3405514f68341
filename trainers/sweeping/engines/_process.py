"""A run as a process of the machine that this code runs on: what every engine starts in the end."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from datamodules.envs.processes import spawn
from trainers.process.child import start_module

# what launchers say of their own processes: a run is no rank of whatever started it
RANKS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "WORLDMODEL_RUN_DIR"),
    *("MASTER_ADDR", "MASTER_PORT"),  # where ranks meet: several runs would take each other's for their own
)
RANKS_OF = ("SLURM_", "SUBMITIT_", "TORCHELASTIC_")


class RunProcess:
    """`python -m trainers.fit` in a session of its own, which saves and ends when this process is gone.

    Args:
        arguments: of `trainers.fit`.
        log: file that all it says is appended to.
        environ: variables that it has beside those of this process.
        cores: that it may run on; none: all.
        cwd: folder that its relative paths are of; None: this process's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str],
        cores: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        inherited = {
            name: value for name, value in os.environ.items() if name not in RANKS and not name.startswith(RANKS_OF)
        }
        words = [str(os.getpid()), ",".join(map(str, cores)), *arguments]

        def start() -> subprocess.Popen[bytes]:
            with log.open("ab") as file:
                return start_module(
                    "trainers.sweeping.engines._child",
                    *words,
                    environ={**inherited, **environ},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    start_new_session=True,
                )

        # not by a thread of Ray's: the kernel ends the child with the thread that has started it
        self._process = spawn(start)

    @property
    def pid(self) -> int:
        """Its process id, which leads its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal, None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask the run to save and end; what it started is its own to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End the run and its group at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
