"""A worker that dies, hangs or sends nonsense is a fault of one environment, and the others go on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from datamodules.envs import counting, wire
from datamodules.envs.errors import WorkerFault, WorkerLost
from datamodules.envs.pool import EnvPool, Patience
from datamodules.envs.protocol import Fault
from datamodules.envs.remote import Remote, Trouble, refuse_failure
from tests.datamodules.envs.pools import ACTION, ROOT, alive, counters


def after_a_fault(pool, index=0):
    """The first row of a new episode in worker `index`."""
    row = pool.reset({index: 9})[index]
    assert counting.decode(row.pixels) == (0, 9), row
    return row


def test_a_killed_worker_is_a_fault_and_restarts_while_others_go_on():
    with counters(2) as pool:
        pool.reset({0: 0, 1: 1})
        os.kill(pool.pids[0], signal.SIGKILL)
        rows = pool.step({0: ACTION, 1: ACTION})
        assert (rows[0].index, rows[0].kind) == (0, "death") and "SIGKILL" in rows[0].message
        assert counting.decode(rows[1].pixels) == (1, 1)
        assert pool.step({0: ACTION})[0] == rows[0]
        after_a_fault(pool)
        rows = pool.step({0: ACTION, 1: ACTION})
        assert [counting.decode(rows[index].pixels) for index in (0, 1)] == [(1, 9), (2, 1)]


def test_a_stopped_worker_times_out_and_the_others_answers_are_kept():
    with counters(2, step_timeout_s=0.3) as pool:
        pool.reset({0: 0, 1: 1})
        stopped = pool.pids[0]
        os.kill(stopped, signal.SIGSTOP)
        begin = time.monotonic()
        rows = pool.step({0: ACTION, 1: ACTION})
        assert rows[0].kind == "timeout" and 0.3 <= time.monotonic() - begin < 25
        assert counting.decode(rows[1].pixels) == (1, 1)
        assert not alive(stopped)
        after_a_fault(pool)


def test_a_request_that_nobody_reads_is_given_up():
    with counters() as pool:
        worker = pool._envs[0].worker
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(Trouble, match="taken in time") as caught:
            for _ in range(100_000):  # more than a socket holds
                worker.send_step({0: ACTION}, deadline=time.monotonic() + 0.2)
        assert caught.value.kind == "timeout"


def test_where_all_are_late_the_first_answer_is_waited_for_and_no_other():
    options = {"fault": "slow", "fault_at": 1, "fault_seed": 7, "slow_s": 0.5}
    with counters(2, options=options, step_timeout_s=600) as pool:
        pool.reset({0: 7, 1: 1})
        os.kill(pool.pids[1], signal.SIGSTOP)
        pool._patience["step"] = Patience(least=0.0, most=0.0)
        assert pool.step({0: ACTION, 1: ACTION}).keys() == {0}
        os.kill(pool.pids[1], signal.SIGKILL)
    with counters(2, step_timeout_s=600) as pool:
        pool.reset({0: 0, 1: 1})
        for pid in pool.pids:
            os.kill(pid, signal.SIGSTOP)
        pool._envs[1]._options = replace(pool._envs[1]._options, step_timeout_s=0.5)
        rows = pool.step({0: ACTION, 1: ACTION})
        assert {index: row.kind for index, row in rows.items()} == {1: "timeout"}
        os.kill(pool.pids[0], signal.SIGKILL)


def test_a_busy_worker_draws_nothing():
    options = {"fault": "slow", "fault_at": 0, "fault_seed": 5, "slow_s": 0.5}
    with counters(2, options=options) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        assert pool.reset({0: 5, 1: 1})[0].kind == "death"
        with pytest.raises(WorkerFault, match="death"):
            pool.render(0, 16)
        rows = pool.reset({0: 5})
        while not rows:
            with pytest.raises(WorkerFault, match=r"worker 0 (starts again|has not answered yet)"):
                pool.render(0, 16)
            rows = pool.step({})
        assert counting.decode(rows[0].pixels) == (0, 5) and pool.render(0, 16).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("raise", "exception", "ArithmeticError: on purpose at 3"),
        ("exit", "death", "exited with code 3"),
        ("hang", "timeout", "no answer"),
        ("nan", "reward", "nan"),
        ("huge", "reward", "1e\\+30"),
        ("shape", "observation", r"expected uint8 \(3, 16, 16\), got uint8 \(3, 15, 16\)"),
        ("garbage", "garbage", "header"),
        ("float", "observation", "float64"),
        ("flags", "observation", "is_first=True"),
        ("steps", "observation", "-1"),
        ("leave", "death", "exited with code 0"),
        ("kill", "death", "SIGKILL"),
        ("stop", "timeout", "no answer"),
    ],
)
def test_faults_are_told_apart_and_survived(fault, kind, text):
    with counters(options={"fault": fault, "fault_seed": 5}, step_timeout_s=1.0) as pool:
        pool.reset({0: 5})
        rows = [pool.step({0: ACTION})[0] for _ in range(3)]
        assert [isinstance(row, Fault) for row in rows] == [False, False, True]
        assert rows[2].kind == kind, rows[2]
        with pytest.raises(WorkerFault, match=text):
            pool.render(0, 32)
        after_a_fault(pool)
        assert not any(isinstance(pool.step({0: ACTION})[0], Fault) for _ in range(8))


def test_what_an_environment_prints_stays_out_of_the_protocol_and_of_stdout():
    code = (
        "import numpy as np; from datamodules.envs.pool import EnvPool\n"
        "with EnvPool(source='counting', kwargs={'fault': 'print', 'fault_at': 1}, count=1) as pool:\n"
        "    pool.reset({0: 0}); print(pool.step({0: np.zeros(2)})[0].reward)\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == "100.0\n", run
    assert run.stderr.count("noise") == 100


def test_too_many_restarts_raise_with_the_cause():
    with counters(options={"fault": "raise", "fault_at": 1}, max_restarts=2) as pool:
        for _ in range(2):
            pool.reset({0: 0})
            assert isinstance(pool.step({0: ACTION})[0], Fault)
        pool.reset({0: 0})
        with pytest.raises(WorkerLost, match=r"failed 3 times.*on purpose"):
            pool.step({0: ACTION})


def test_old_restarts_are_forgotten():
    with counters(options={"fault": "raise", "fault_at": 1}, max_restarts=1, restart_window_s=0.0) as pool:
        for _ in range(3):
            pool.reset({0: 0})
            assert isinstance(pool.step({0: ACTION})[0], Fault)


def test_a_worker_that_dies_while_it_restarts_is_a_fault_of_the_reset():
    with counters() as pool:
        for _ in range(2):
            os.kill(pool.pids[0], signal.SIGKILL)
            assert pool.reset({0: 0})[0].kind == "death"
        after_a_fault(pool)


@pytest.mark.parametrize(
    ("fault", "kind"), [("raise", "exception"), ("kill", "death"), ("stop", "timeout"), ("float", "observation")]
)
def test_a_reset_can_fail_too(fault, kind):
    with counters(options={"fault": fault, "fault_at": 0, "fault_seed": 5}, reset_timeout_s=5.0) as pool:
        assert pool.reset({0: 5})[0].kind == kind
        after_a_fault(pool)


@pytest.mark.parametrize("kind", ["blank", "frozen"])
def test_frames_that_say_nothing_are_a_fault_after_a_few(kind):
    options = {"fault": kind, "fault_seed": 5, "fault_at": 2, "episode_steps": 50}
    with counters(options=options, blank_frames=4, frozen_frames=4) as pool:
        pool.reset({0: 5})
        rows = [pool.step({0: ACTION})[0] for _ in range(6)]
        found = [i for i, row in enumerate(rows) if isinstance(row, Fault)]
        # the frame of control step 2 is the first one; for four states more it may stay
        assert found[0] == {"blank": 4, "frozen": 5}[kind] and rows[found[0]].kind == kind, rows[found[0]]
        after_a_fault(pool)


@pytest.mark.parametrize("fault", ["frozen", "blank"])
def test_frames_are_not_looked_at_where_nobody_wants_it(fault):
    options = {"fault": fault, "fault_at": 2, "episode_steps": 50, "blank": fault == "blank"}
    with counters(options=options, blank_frames=0, frozen_frames=0) as pool:
        pool.reset({0: 5})
        assert not any(isinstance(pool.step({0: ACTION})[0], Fault) for _ in range(20))


def test_a_world_that_stands_still_is_not_frozen():
    # the same frame of the same state, for as long as one likes
    with EnvPool(source="toy", kwargs={"size": 16, "episode_steps": 60}, count=1, frozen_frames=3) as pool:
        pool.reset({0: 1})
        assert not any(isinstance(pool.step({0: np.zeros(2)})[0], Fault) for _ in range(60))


def decisions_per_s(pool, running, seconds):
    """Of environments that answer, each acting again as soon as it has, whatever becomes of the others."""
    rows, count, faults = dict(running), 0, []
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        ended = {i: 1000 + count + i for i, row in rows.items() if row.is_last}
        arrived = pool.reset(ended) if ended else {}
        if running := {i: ACTION for i, row in rows.items() if not row.is_last}:
            arrived |= pool.step(running)
        faults += [row for row in arrived.values() if isinstance(row, Fault)]
        rows = {i: row for i, row in arrived.items() if not isinstance(row, Fault)}
        count += len(rows)
    return count / (time.monotonic() - begin), faults


# a restart takes processor time, which on one core it takes from the others
@pytest.mark.parametrize(("state", "share"), [("hangs", 0.5), ("restarts", 0.1)])
def test_others_keep_their_rate_while_one(state, share):
    # a sleep of 4 ms, as long as a rendered frame takes, so that the machine's load matters little
    options = {"fault": "slow", "fault_at": 1, "slow_s": 0.004, "episode_steps": 1}
    with counters(3, options=options, step_timeout_s=60) as pool:
        rows = pool.reset({0: 0, 1: 1, 2: 2})
        before, _ = decisions_per_s(pool, {1: rows[1], 2: rows[2]}, 1.5)
        pool.reset({0: 0, 1: 1, 2: 2})
        os.kill(pool.pids[0], signal.SIGSTOP if state == "hangs" else signal.SIGKILL)
        rows = pool.step(dict.fromkeys(range(3), ACTION))
        if state == "restarts":
            assert rows.pop(0).kind == "death"
            pool.reset({0: 5, 1: 1, 2: 2})
            rows = pool.step({1: ACTION, 2: ACTION})
        during, faults = decisions_per_s(pool, {i: rows[i] for i in (1, 2)}, 1.5)
        assert not faults and during >= share * before, (before, during)


def test_a_late_answer_comes_with_a_later_call():
    options = {"fault": "slow", "fault_at": 5, "fault_seed": 7, "slow_s": 2.0, "episode_steps": 300}
    with counters(2, options=options) as pool:
        pool.reset({0: 7, 1: 1})
        for _ in range(4):
            pool.step({0: ACTION, 1: ACTION})
        begin = time.monotonic()
        rows = pool.step({0: ACTION, 1: ACTION})
        assert rows.keys() == {1} and time.monotonic() - begin < 1.9
        alone = [pool.step({1: ACTION}) for _ in range(5)]
        assert all(row.keys() == {1} for row in alone) and time.monotonic() - begin < 1.9
        late = {}
        while not late:
            late = pool.step({})
        assert counting.decode(late[0].pixels) == (5, 7) and time.monotonic() - begin > 1.9
        rows = pool.step({0: ACTION, 1: ACTION})
        assert [counting.decode(rows[i].pixels)[0] for i in (0, 1)] == [6, 11]


def test_an_error_with_a_long_message_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "long_winded.py").write_text(LONG_WINDED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with EnvPool(source="gym", kwargs={"task": "long_winded:make", "size": 16, "episode_steps": 9}, count=1) as pool:
        pool.reset({0: 1})
        fault = pool.step({0: np.zeros(1, np.float32)})[0]
        assert fault.kind == "exception" and "xxx" in fault.message and len(fault.message) < 5000


LONG_WINDED = """
import gymnasium as gym, numpy as np
class LongWinded(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        return np.arange(768).reshape(16, 16, 3).astype(np.uint8), {}
    def step(self, action):
        raise ValueError("x" * 1_500_000)
def make():
    return LongWinded()
"""


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"error": "x"}', "3"])
def test_a_text_that_is_no_json_of_ours_is_garbage(text):
    remote = object.__new__(Remote)
    for use in (remote.accept, refuse_failure):
        with pytest.raises(Trouble) as caught:
            use(wire.Reply(1, wire.FAILED, text=text))
        assert caught.value.kind == "garbage"
    with pytest.raises(Trouble) as caught:
        remote.accept(wire.Reply(0, wire.READY, text=text))
    assert caught.value.kind == "garbage"
