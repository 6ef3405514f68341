import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.deployment.planner_messages import Sizes, pack_answer, pack_request, unpack_answer, unpack_request
from trainers.deployment.planner_watchdog import PlannerFailed, PlannerProcess, _takes_more
from trainers.deployment.planning import DeadlinePlanner, Planned, Request
from worldmodel.planners.search import Search
from worldmodel.planners.searches import SearchElsewhere

SIZES = Sizes(latent=3, horizon=4, action=2)


def test_messages_survive_the_way():
    warm = np.full((4, 2), np.nan, np.float32)
    for goal in (None, np.float32([1, 2, 3])):
        request = Request(np.float32([1, 2, 3]), warm, 7, goal)
        number, until, got = unpack_request(pack_request(5, 1.5, request), SIZES)
        assert (number, until, got.seed) == (5, 1.5, 7)
        np.testing.assert_array_equal(got.latent, request.latent)
        np.testing.assert_array_equal(got.warm, warm)
        assert (got.goal is None) == (goal is None)
    planned = Planned(np.ones((4, 2), np.float32), 2.5)
    number, got = unpack_answer(pack_answer(9, planned), SIZES)
    assert number == 9 and got.value == 2.5
    assert unpack_answer(pack_answer(9, None), SIZES) == (9, None)
    assert unpack_answer(pack_answer(9, Planned(planned.mean * np.nan, 0.0)), SIZES) == (9, None)
    with pytest.raises(ValueError, match=r"reshape|expected"):
        unpack_answer(pack_answer(9, planned)[:-4], SIZES)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tiny_bundle(tmp_path_factory.mktemp("b") / "b")
    bundle = read_bundle(folder)
    agent = bundle.build()
    return folder, bundle, agent, Sizes.of(agent)


def request(agent, seed=0):
    return Request(np.zeros(agent.dynamics.latent_dim, np.float32), np.full((5, 2), np.nan, np.float32), seed)


STARTING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
from tests.rigs.tiny_bundle import tiny_bundle
from trainers.deployment.controller import Controller

try:
    Controller(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_while_it_starts_is_the_parent_s_alone(setting):
    command = [sys.executable, "-c", STARTING, setting[0]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen(command, process_group=0, **pipes)

    def planner():
        return [pid for pid in children(parent.pid) if b"planner_process" in commandline(pid)]

    until(planner)
    (child,) = planner()
    os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=60)
    assert (out.strip(), err) == ("interrupted", "")
    until(lambda: b"planner_process" not in commandline(child))  # its pipe has ended


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def commandline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_planner_that_dies_or_hangs_is_replaced_and_nobody_waits(setting):
    folder, bundle, agent, sizes = setting
    inline = DeadlinePlanner(agent, budget_s=10.0)
    process = PlannerProcess(folder, sha256=bundle.sha256, sizes=sizes, budget_s=10.0, hang_s=0.3)
    try:
        ask = lambda seconds=20.0: process.ask(request(agent), until=time.monotonic() + seconds)  # noqa: E731
        np.testing.assert_array_equal(ask().mean, inline.ask(request(agent), until=time.monotonic() + 20).mean)
        first = process.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: ask(0.05) is None and process.pid != first)
        until(lambda: process.ready)
        assert process.pid != first and ask() is not None
        second = process.pid
        os.kill(second, signal.SIGSTOP)
        assert ask(0.05) is None and process.pid == second  # not yet hung
        time.sleep(0.4)
        start = time.monotonic()
        assert ask(0.05) is None and time.monotonic() - start < 5
        until(lambda: process.ready)
        assert process.pid != second and ask() is not None and process.restarts == 2
    finally:
        process.close()
    assert process.pid is None and process.ask(request(agent), until=time.monotonic()) is None


def test_a_bundle_that_changed_meanwhile_is_not_run(setting):
    folder, _, _, sizes = setting
    with pytest.raises(PlannerFailed, match="the bundle has changed"):
        PlannerProcess(folder, sha256="0" * 64, sizes=sizes, budget_s=1.0, hang_s=1.0)


def test_it_tunes_itself_to_the_budget(setting):
    _, _, agent, _ = setting
    generous = DeadlinePlanner(agent, budget_s=10.0)
    assert generous.tuned["iterations"] == agent.planner.iterations
    tight = DeadlinePlanner(agent, budget_s=1e-6)
    assert tight.tuned["iterations"] == 1 and tight.tuned["candidates"] == 16
    assert np.isfinite(tight.ask(request(agent), until=time.monotonic()).mean).all()


class Elsewhere(SearchElsewhere):
    """As `planner=ensemble`, in the world that is there."""

    def world(self, simulator, latent):
        return simulator, latent


def test_a_planner_within_another_is_tuned_as_alone(setting, monkeypatch):
    _, _, agent, _ = setting
    alone = DeadlinePlanner(agent, budget_s=10.0)
    monkeypatch.setattr(agent, "planner", Elsewhere(agent.planner))
    within = DeadlinePlanner(agent, budget_s=10.0)
    assert agent.planner.search.iterations > 1
    assert within.tuned["iterations"] == agent.planner.search.iterations
    plans = [one.ask(request(agent), until=time.monotonic() + 20).mean for one in (alone, within)]
    np.testing.assert_array_equal(*plans)
    tuned = DeadlinePlanner(agent, budget_s=1e-6).tuned
    assert tuned["iterations"] == 1 and tuned["candidates"] == 16
    assert agent.planner.search.candidates > 16


def test_a_plan_that_was_never_looked_at_is_none(setting):
    _, _, agent, _ = setting
    planner = DeadlinePlanner(agent, budget_s=10.0)
    warm = np.zeros((5, 2), np.float32)
    latent = np.zeros(agent.dynamics.latent_dim, np.float32)
    assert planner.ask(Request(latent, warm, 0), until=time.monotonic() - 1) is None
    assert planner.ask(Request(latent, warm, 0), until=time.monotonic() + 10) is not None


class Content(Search):
    """Finds nothing better than what it begins with, which is `begins` with the warm start."""

    def __init__(self, begins):
        super().__init__(horizon=5, iterations=3)
        self.begins = begins

    def search(self, problem):
        for _ in problem.rounds(range(problem.iterations)):
            pass
        plan = self.begins(problem)
        return plan, problem.latent.new_full((1,), 1.0 if plan.any() else -math.inf)


def test_a_search_that_finds_nothing_better_than_the_last_plan_has_planned(setting, monkeypatch):
    _, _, agent, _ = setting
    warm = np.full((5, 2), 0.25, np.float32)
    asked = Request(np.zeros(agent.dynamics.latent_dim, np.float32), warm, 0)
    monkeypatch.setattr(agent, "planner", Content(lambda problem: problem.warm))
    planner = DeadlinePlanner(agent, budget_s=10.0)
    np.testing.assert_array_equal(planner.ask(asked, until=time.monotonic() + 10).mean, warm)
    assert planner.ask(asked, until=time.monotonic() - 1) is None


def test_zeros_that_were_never_looked_at_are_no_plan(setting, monkeypatch):
    """As a tree of which nothing has grown gives."""
    _, _, agent, _ = setting
    monkeypatch.setattr(agent, "planner", Content(lambda problem: torch.zeros(1, 5, 2)))
    planner = DeadlinePlanner(agent, budget_s=10.0)
    assert planner.ask(request(agent), until=time.monotonic() - 1) is None
    assert planner.ask(request(agent), until=time.monotonic() + 10) is not None


def test_a_planner_whose_parent_is_gone_before_it_is_tuned_ends_quietly(setting):
    folder, bundle, *_ = setting
    ours, theirs = socket.socketpair()
    ours.close()
    command = [sys.executable, "-m", PlannerProcess.program, str(folder), "0.1", bundle.sha256, str(theirs.fileno())]
    done = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=60, check=False)
    theirs.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nobody_waits_for_a_planner_that_reads_nothing(setting):
    """Requests fill the socket long before ten periods have passed where decisions are fast."""
    folder, bundle, agent, sizes = setting
    process = PlannerProcess(folder, sha256=bundle.sha256, sizes=sizes, budget_s=10.0, hang_s=30.0)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        slowest = 0.0
        for _ in range(3000):
            start = time.monotonic()
            assert process.ask(request(agent), until=start + 0.0001) is None
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 1.0
        pipe = process._pipe
        assert not _takes_more(pipe, time.monotonic())  # it is full: a send would wait
    finally:
        process.close()
