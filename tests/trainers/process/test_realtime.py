"""Who runs first: this thread and what it starts, the planner right behind; where it is not allowed, that is said."""

import os
import subprocess
import sys
import threading

import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from trainers import drive, serve
from trainers.command.configuration import BadConfig
from trainers.deployment.controller import Controller
from trainers.process.realtime import PRIORITY, realtime
from worldmodel.errors import BadValue


def allowed() -> bool:
    try:
        with realtime():
            return True
    except BadValue:
        return False


needs_permission = pytest.mark.skipif(not allowed(), reason="no permission for real-time scheduling")
ASK = "import os; print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)"


def scheduling(pid: int = 0) -> tuple[int, int]:
    return os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority


@needs_permission
def test_this_thread_and_what_it_starts_run_first_and_only_meanwhile():
    before, seen = scheduling(), []
    with realtime():
        thread = threading.Thread(target=lambda: seen.append(scheduling()))
        thread.start()
        thread.join()
        child = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
        assert scheduling() == seen[0] == (os.SCHED_FIFO, PRIORITY)
        assert child.stdout.split() == [str(os.SCHED_FIFO), str(PRIORITY)]
    assert scheduling() == before != (os.SCHED_FIFO, PRIORITY)
    with realtime(False):
        assert scheduling() == before


@needs_permission
def test_what_a_person_has_set_stays():
    before = scheduling()
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(7))
    try:
        with realtime():
            assert scheduling() == (os.SCHED_RR, 7)
        assert scheduling() == (os.SCHED_RR, 7)
    finally:
        os.sched_setscheduler(0, before[0], os.sched_param(before[1]))


@needs_permission
def test_plans_run_right_behind_who_waits_for_them(tmp_path):
    with realtime(), Controller(tiny_bundle(tmp_path / "b", what="both")) as controller:
        threads = [int(name) for name in os.listdir(f"/proc/{controller.planner.pid}/task")]
        assert {scheduling(pid) for pid in threads} == {(os.SCHED_FIFO, PRIORITY - 1)}


@needs_permission
def test_a_drive_runs_its_controller_so(tmp_path, monkeypatch):
    seen = []
    step = Controller.step
    monkeypatch.setattr(Controller, "step", lambda *a, **k: (seen.append(scheduling()), step(*a, **k))[1])
    toy = ("env=toy_point", "task.env.episode_steps=5", "task.env.random_goal=false")
    bundle = tiny_bundle(tmp_path / "b", what="policy")
    driven = drive.main([f"bundle={bundle}", *toy, "hz=5", f"out={tmp_path / 'out'}", "realtime=true"])
    assert driven["decisions"] >= 5 and set(seen) == {(os.SCHED_FIFO, PRIORITY)}
    assert scheduling() != (os.SCHED_FIFO, PRIORITY)


def test_without_permission_it_is_refused_before_anything_starts(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    bundle = tiny_bundle(tmp_path / "b", what="policy")
    for main, arguments in ((drive.main, ("env=toy_point", f"out={tmp_path / 'out'}")), (serve.main, ("port=0",))):
        with pytest.raises(BadValue, match=r"realtime: expected the permission \(root, .*got none: Operation not"):
            main([f"bundle={bundle}", "realtime=true", *arguments])
        with pytest.raises(BadConfig, match="realtime: expected true or false, got 'yes'"):
            main([f"bundle={bundle}", "realtime=yes", *arguments])
    assert not (tmp_path / "out").exists()
