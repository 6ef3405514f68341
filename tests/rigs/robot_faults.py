"""Server, camera, planner and network killed, stopped and cut at random while a robot asks for actions in real time.

The robot's side must have an action or a latched stop within two periods, whatever happens.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.rigs.cut_network import CutNetwork
from tests.rigs.other_camera import OtherCamera
from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.deployment.remote_controller import RemoteController
from trainers.process.realtime import realtime as run_first

SHARES = {  # how often each happens; what starts programs anew costs seconds
    **{"server killed": 0.05, "server stopped": 0.15, "planner killed": 0.05, "planner stopped": 0.15},
    **{"camera killed": 0.1, "camera stopped": 0.1, "network cut": 0.2, "network stalled": 0.2},
}
RECOVERY_S = 60.0  # in which a fault that is over must be over for the robot too


def measure(*, faults: int = 20, seed: int = 0, hz: float = 20.0, realtime: int = 0) -> dict[str, Any]:
    """Counts; `over_two_periods`, `nonfinite`, `exceptions` and `not_recovered` must be 0."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder) / "bundle", limits={"missing": 5})
        with Scene(bundle, hz) as scene:
            # the robot's side alone: a server that starts at its priority would take its turn
            with run_first(bool(realtime)):
                robot = RobotLoop(scene, hz)
            kinds = _play(scene, robot, faults, np.random.default_rng(seed), hz)
    return {"faults": sum(kinds.values()), **robot.counts(), "kinds": dict(kinds)}


class Scene:
    """A server behind a network that can be cut, and a camera, each in a process of its own."""

    def __init__(self, bundle: Path, hz: float) -> None:
        self.bundle, self._hz = bundle, hz
        self._server, self._port = self._serve(0)
        self.network = CutNetwork(self._port)
        self.camera = OtherCamera(hz)

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_server()
        self.network.close()
        self.camera.close()

    def break_(self, kind: str, lasts_s: float) -> None:
        """Do what `kind` says for so long, and see to it afterwards."""
        what, _, how = kind.partition(" ")
        if what == "network":
            self.network.cut() if how == "cut" else self.network.stall()
            time.sleep(lasts_s)
            self.network.heal()
        elif what == "camera":
            self.camera.kill(lasts_s) if how == "killed" else self.camera.stop(lasts_s)
        elif how == "stopped":
            _stopped(self._pid(what), lasts_s)
        elif what == "planner":
            os.kill(self._pid(what), signal.SIGKILL)  # the server starts it again
        else:
            self._end_server()
            self._server, _ = self._serve(self._port)

    def _pid(self, what: str) -> int:
        if what == "server":
            return self._server.pid
        end = time.monotonic() + RECOVERY_S
        while not (planners := _children(self._server.pid)):
            assert time.monotonic() < end, "no planner"
            time.sleep(0.05)
        return planners[0]

    def _serve(self, port: int) -> tuple["subprocess.Popen[str]", int]:
        command = [sys.executable, "-m", "trainers.serve", f"bundle={self.bundle}", f"port={port}", f"hz={self._hz}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())["port"]

    def _end_server(self) -> None:
        self._server.kill()  # its planner's process notices and ends
        self._server.wait()


def _children(pid: int) -> list[int]:
    """The processes that any thread of one has started."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _stopped(pid: int, lasts_s: float) -> None:
    with suppress(ProcessLookupError):  # a watchdog was faster
        os.kill(pid, signal.SIGSTOP)
        time.sleep(lasts_s)
        os.kill(pid, signal.SIGCONT)


class RobotLoop:
    """A thread that asks for an action every period, takes note of the gaps, and releases latched stops."""

    def __init__(self, scene: Scene, hz: float) -> None:
        self._scene, self._period_s = scene, 1 / hz
        self._over = self._nonfinite = self._exceptions = self._released = self.not_recovered = 0
        self._sources, self._steps, self._longest_s = Counter[str](), 0, 0.0
        self.fresh = 0  # actions that an answer of the server's to a frame has given
        self._end, connected = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(connected,), daemon=True)
        self._thread.start()
        # who cannot connect at all is told so: faults are of a robot that is at work
        assert connected.wait(RECOVERY_S), "the robot did not connect"

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def counts(self) -> dict[str, Any]:
        counted = {"over_two_periods": self._over, "nonfinite": self._nonfinite, "exceptions": self._exceptions}
        counted |= {"not_recovered": self.not_recovered, "decisions": self._steps, "stops_released": self._released}
        longest = {"longest_gap_ms": round(1e3 * self._longest_s, 1), "period_ms": round(1e3 * self._period_s, 1)}
        return {**counted, **longest, "sources": dict(self._sources)}

    def _run(self, connected: threading.Event) -> None:
        address = f"ws://127.0.0.1:{self._scene.network.port}"
        with RemoteController(address, read_bundle(self._scene.bundle).control, hz=1 / self._period_s) as controller:
            connected.set()
            acted = tick = time.monotonic()
            while not self._end.is_set():
                if controller.stopped and self._steps % 20 == 0:
                    controller.release()
                    self._released += 1
                # after an action at once, an action late: a period, this wait and the controller's 0.8 stay below two
                frame = self._scene.camera.newest(0.1 * self._period_s)
                try:
                    action, status = controller.step(frame)
                except BaseException as error:  # noqa: BLE001 - it is what must not happen
                    self._exceptions += 1
                    print(f"{type(error).__name__}: {error}", flush=True)
                    continue
                now = time.monotonic()
                self._longest_s = max(self._longest_s, now - acted)
                self._over += now - acted > 2 * self._period_s
                self._nonfinite += not np.isfinite(action).all()
                self._sources[status.source] += 1
                self.fresh += frame is not None and status.source in ("plan", "policy")
                self._steps, acted = self._steps + 1, now
                tick = max(tick + self._period_s, now - self._period_s)
                time.sleep(max(0.0, tick - now))


def _play(scene: Scene, robot: RobotLoop, faults: int, rng: np.random.Generator, hz: float) -> Counter[str]:
    kinds: Counter[str] = Counter()
    try:
        for n in range(faults):
            kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
            time.sleep(float(rng.uniform(0, 4 / hz)))
            scene.break_(kind, float(rng.exponential(8 / hz)))
            kinds[kind] += 1
            before = robot.fresh
            if not _comes_true(lambda before=before: robot.fresh >= before + 2):  # type: ignore[misc]
                robot.not_recovered += 1
                print(f"fault {n}, {kind}: no answer in {RECOVERY_S:.0f} s", flush=True)
    finally:
        robot.close()
    return kinds


def _comes_true(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + RECOVERY_S
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
