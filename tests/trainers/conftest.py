"""Runs of the entry points in processes of their own, and one finished run that many tests look at."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trainers.command import entry

ROOT = Path(__file__).resolve().parents[2]
TOY = (
    "experiment=smoke",
    "task.env_steps=120",
    "task.env.episode_steps=20",
    "evaluation.every=40",
    "data.update_ratio=0.2",
    "planner.iterations=1",
    "trainer.accelerator=cpu",
)


# far more than what is waited for takes, on a slow machine too: only a failure waits as long
GONE_S, WAIT_S = 60.0, 200.0


@dataclass
class Started:
    """A run under way; `pid` leads its process group."""

    pid: int
    out: Path
    err: Path
    poll: Callable[[int], int | None]
    code: int | None = field(default=None)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Exit code, negative for a signal; kills the group and fails when it takes too long."""
        until(lambda: self.finished(), timeout_s=timeout_s, what=self)
        assert self.code is not None
        return self.code

    def finished(self) -> bool:
        if self.code is None:
            self.code = self.poll(self.pid)
        return self.code is not None

    def send(self, number: int) -> None:
        os.killpg(self.pid, number)

    def wait_for_rows(self, folder: Path, count: int) -> None:
        """Until metrics.csv in `folder` has that many rows, or the run is over."""
        path = folder / "metrics.csv"
        rows = lambda: len(path.read_text().splitlines()) - 1 if path.exists() else 0  # noqa: E731
        until(lambda: rows() >= count or self.finished(), timeout_s=WAIT_S, what=self)

    def wait_for(self, path: Path) -> None:
        """Until a file is there, or the run is over."""
        until(lambda: path.exists() or self.finished(), timeout_s=WAIT_S, what=self)

    def results(self) -> dict:
        """The last line of standard output, which must be all there is on it."""
        lines = self.out.read_text().splitlines()
        assert len(lines) == 1, (lines, self.err.read_text())
        return json.loads(lines[0])


def until(holds: Callable[[], object], *, timeout_s: float, what: object) -> None:
    """Wait until something holds; fails after timeout_s."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            if isinstance(what, Started):
                os.killpg(what.pid, signal.SIGKILL)
                what = what.err.read_text()
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


def alive(group: int) -> list[int]:
    """Processes of a group that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            found.append(int(folder.name))
    return found


class Runs:
    """Starts runs in forked processes that have everything loaded already."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._server: subprocess.Popen[str] | None = None

    def fit(self, *arguments: str, **environ: str) -> Started:
        return self.start("fit", *arguments, **environ)

    def ranks(self, count: int, *arguments: str, **environ: str) -> list[Started]:
        """Ranks of one run, started apart in one process group; the first leads it and prints the results."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "NODE_RANK": "0"}
        started: list[Started] = []
        for rank in map(str, range(count)):
            group = started[0].pid if started else 0
            own = {"LOCAL_RANK": rank, "RANK": rank, **environ}
            started.append(self.start("fit", *arguments, group=group, **common, **own))
        return started

    def start(self, main: str, *arguments: str, group: int = 0, **environ: str) -> Started:
        self._count += 1
        out, err = (self._folder / f"{self._count:03d}.{kind}" for kind in ("out", "err"))
        job = {"main": main, "arguments": arguments, "environ": environ, "group": group}
        pid = self._ask({**job, "out": str(out), "err": str(err)})
        if not group:
            until(lambda: os.getpgid(pid) == pid, timeout_s=WAIT_S, what=f"the group of {arguments}")
        return Started(pid, out, err, poll=lambda pid: self._ask({"poll": pid}))

    def cli(self, module: str, *arguments: str, **environ: str) -> Started:
        """The command a user types, imports and all."""
        self._count += 1
        out, err = (self._folder / f"{self._count:03d}.{kind}" for kind in ("out", "err"))
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=stdout,
                stderr=stderr,
                cwd=ROOT,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        return Started(process.pid, out, err, poll=lambda pid: process.poll())

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate(timeout=60)

    def _ask(self, job: dict) -> int:
        if self._server is None:
            command = [sys.executable, str(Path(__file__).with_name("forker.py"))]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._server = subprocess.Popen(command, cwd=self._folder, **pipes)
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    server = Runs(tmp_path_factory.mktemp("runs"))
    yield server
    server.close()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Call an entry point as a command that must be refused; returns its one line on stderr."""

    def call(main: Callable, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        monkeypatch.setattr(entry, "tune_allocator", lambda: True)
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        capsys.readouterr()
        code = entry.run(main, usage="")
        out, err = capsys.readouterr()
        line = err.strip()
        assert code == 2, (code, out, err)
        if not entry.is_first_rank():
            assert out == ""
            return line
        assert json.loads(out) == {"status": "failed", "error": line.splitlines()[-1], "exit_code": 2}
        return line

    return call


@pytest.fixture(scope="session")
def gone() -> Callable[[int], bool]:
    """Whether all processes of a group end within a generous time: the last ones may end after their leader."""

    def ends(group: int) -> bool:
        end = time.monotonic() + GONE_S
        while alive(group) and time.monotonic() < end:
            time.sleep(0.02)
        return alive(group) == []

    return ends


@pytest.fixture(scope="session")
def toy() -> tuple[str, ...]:
    """Overrides of a run of seconds: six episodes, 24 updates, three evaluations."""
    return TOY


@pytest.fixture(scope="session")
def finished(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run = runs.fit(*TOY, f"run_dir={folder}")
    assert run.wait() == 0, run.err.read_text()
    return folder
