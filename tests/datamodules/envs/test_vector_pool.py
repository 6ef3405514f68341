import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.errors import BadAction, BadOption, NotReset, UnknownTask, WorkerFault, WorkerLost
from datamodules.envs.pool import VectorPool
from datamodules.envs.protocol import Fault
from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.rollout import SmoothRandom, play
from trainers.build import environments

pytest.importorskip("gymnasium")

FOLDER, ROOT = Path(__file__).parent, Path(__file__).parents[3]
ZERO, HALF = np.zeros(2, np.float32), np.full(2, 0.5, np.float32)
LENGTHS = (4, 2, 3, 7)


@pytest.fixture(autouse=True)
def envs(monkeypatch):
    """The module of test environments, importable here and in workers."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    import gym_envs

    return gym_envs


def options(task="sync_lanes", **kwargs):
    lanes = {"lengths": LENGTHS, **kwargs}
    return {"task": f"gym_envs:{task}", "size": 16, "episode_steps": 50, "kwargs": lanes}


def open_pool(count=2, *, visuals=None, kwargs=None, **limits):
    return VectorPool(source="vector", kwargs=kwargs or options(), count=count, visuals=visuals, **limits)


def all_steps(pool, count=2):
    return pool.step(dict.fromkeys(range(count), ZERO))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_replay_holds_exactly_the_true_transitions(envs, tmp_path, mode):
    """What the collector does, in a worker and through the files: no dummy row, none lost, none shifted."""
    with open_pool(3, kwargs=options(mode=mode)) as pool:
        replay = Replay(spec=pool.spec, capacity=1000, streams=3, folder=tmp_path)
        policy = SmoothRandom(pool.spec, rngs=[np.random.default_rng(lane) for lane in range(3)])
        for number in range(5):
            play(pool, policy, {lane: 10 * number + lane for lane in range(3)}, on_row=replay.append)
        replay.close()
    recorded = Recorded(tmp_path)
    episodes = list(recorded.trajectories())
    assert len(episodes) == 15
    seen = set()
    for episode in episodes:
        marks = [envs.read(pixels) for pixels in episode.pixels]
        lane, number, _ = marks[0]
        length = LENGTHS[(number + lane) % len(LENGTHS)]
        assert marks == [(lane, number, time) for time in range(length + 1)]
        natives = 2 + 2 * episode.action[1:, 0]
        expected = [envs.reward_of(time, a) for (_, time), a in zip(pairwise(range(length + 1)), natives, strict=True)]
        np.testing.assert_allclose(episode.reward, [0, *expected], rtol=1e-5)
        assert episode.terminal == (number % 2 == 0)
        assert episode.env_steps.tolist() == [0] + [1] * length
        seen.add((lane, number))
    assert len(seen) == 15
    recorded.close()


def test_one_process_serves_all_lanes_and_draws_each(envs):
    with open_pool(3) as pool:
        assert len(pool.pids) == 1 and pool.spec.pixels == (3, 16, 16)
        rows = pool.reset({2: 1, 0: 1, 1: 1})
        assert {lane: envs.read(row.pixels)[0] for lane, row in rows.items()} == {0: 0, 1: 1, 2: 2}
        rows = pool.step({lane: np.full(2, lane / 2, np.float32) for lane in (1, 0, 2)})
        assert {lane: row.reward for lane, row in rows.items()} == {0: 12.0, 1: 13.0, 2: 14.0}
        for lane in range(3):
            np.testing.assert_array_equal(pool.render(lane, 16), envs.watermark(lane, 1, 1))
        assert pool.step({}) == {} and pool.reset({}) == {}


def test_rows_stay_as_they_were_returned(envs):
    with open_pool() as pool:
        rows = [pool.reset({0: 0, 1: 0}), all_steps(pool), all_steps(pool)]
    assert [envs.read(row[0].pixels)[2] for row in rows] == [0, 1, 2]


def fail_and_recover(envs, pool, kind, text):
    """All lanes get the fault, keep it until they are reset, and go on after that."""
    rows = all_steps(pool)
    assert {lane: (row.index, row.kind) for lane, row in rows.items()} == {lane: (lane, kind) for lane in (0, 1)}
    assert text in rows[0].message
    assert all_steps(pool) == rows
    with pytest.raises(WorkerFault, match=kind):
        pool.render(1, 16)
    assert envs.read(pool.reset({0: 9})[0].pixels)[2] == 0
    assert pool.step({1: ZERO}) == {1: rows[1]}
    again = pool.reset({0: 9, 1: 9})
    assert [row.is_first for row in again.values()] == [True, True]
    assert not any(isinstance(row, Fault) for row in all_steps(pool).values())


@pytest.mark.parametrize(
    ("number", "kind", "text"), [(signal.SIGKILL, "death", "SIGKILL"), (signal.SIGSTOP, "timeout", "no answer")]
)
def test_a_lost_worker_is_a_fault_of_every_lane(envs, number, kind, text):
    with open_pool(step_timeout_s=1.0) as pool:
        pool.reset({0: 1, 1: 2})
        os.kill(pool.pids[0], number)
        fail_and_recover(envs, pool, kind, text)


LEARNER = """
import numpy as np, sys
from datamodules.envs.pool import VectorPool
pool = VectorPool(source="vector", kwargs={kwargs!r}, count=2, step_timeout_s=600)
pool.reset({{0: 0, 1: 1}})
print(pool.pids[0], flush=True)
{then}
"""


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids):
    """Whether processes end in a time that is always enough."""
    end = time.monotonic() + 60
    while any(running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(running(pid) for pid in pids)


def running(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_lanes_own_processes_end_with_a_worker_that_is_given_up(envs):
    with open_pool(kwargs=options("async_lanes"), step_timeout_s=1.0) as pool:
        pool.reset({0: 1, 1: 2})
        lanes = children(pool.pids[0])
        assert len(lanes) == 2 and all(running(pid) for pid in lanes)
        assert [row.kind for row in all_steps(pool).values()] == ["timeout", "timeout"]
        assert gone(lanes)


@pytest.mark.parametrize("then", ["pool.step({0: np.zeros(2), 1: np.zeros(2)})", "sys.exit()"])
def test_the_lanes_own_processes_end_with_the_learner(envs, then):
    code = LEARNER.format(kwargs=options("async_lanes"), then=then)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as learner:
        worker = int(learner.stdout.readline())
        lanes = children(worker) if "step" in then else []
        if "step" in then:
            assert len(lanes) == 2
            learner.kill()
        assert gone([worker, *lanes])


def test_a_bad_value_of_one_lane_is_a_fault_of_every_lane(envs):
    with open_pool(kwargs=options("one_bad_lane"), max_restarts=1) as pool:
        pool.reset({0: 1, 1: 2})
        rows = all_steps(pool)
        assert [row.kind for row in rows.values()] == [rows[0].kind] * 2 and "finite" in rows[0].message
        pool.reset({0: 1, 1: 2})
        with pytest.raises(WorkerLost, match=r"2 times.*finite"):
            all_steps(pool)


def test_a_fault_ends_the_episodes_of_play(envs):
    faults = []
    with open_pool(kwargs=options("one_bad_lane")) as pool:
        policy = SmoothRandom(pool.spec, rngs=[np.random.default_rng(lane) for lane in range(2)])
        episodes = play(pool, policy, {0: 1, 1: 2}, on_fault=faults.append)
    assert sorted(fault.index for fault in faults) == [0, 1] and all(episode.fault for episode in episodes)


def test_the_callers_mistakes_are_not_faults(envs):
    with open_pool() as pool:
        with pytest.raises(NotReset):
            all_steps(pool)
        pool.reset({0: 0, 1: 0})
        with pytest.raises(BadAction):
            pool.step({0: ZERO, 1: np.array([np.nan, 0])})
        with pytest.raises(BadOption):
            pool.render(0, 10_000)
        assert [envs.read(row.pixels)[2] for row in all_steps(pool).values()] == [1, 1]
        # lanes cannot wait
        pool.step({0: ZERO})
        with pytest.raises(NotReset):
            all_steps(pool)


def test_lanes_are_seen_through_visual_options(envs):
    with open_pool(visuals={"frame_stack": {"count": 2}}) as pool:
        assert pool.spec.pixels == (6, 16, 16) and list(pool.spec.visuals) == ["frame_stack"]
        rows = [pool.reset({0: 0, 1: 0}), all_steps(pool), all_steps(pool)]
    for lane in (0, 1):
        times = [[envs.read(half)[2] for half in (row[lane].pixels[:3], row[lane].pixels[3:])] for row in rows]
        assert times == [[0, 0], [0, 1], [1, 2]]
    with open_pool(visuals={"time_limit": {"env_steps": 1}}) as pool:
        pool.reset({0: 0, 1: 0})
        assert all(row.is_last and not row.is_terminal for row in all_steps(pool).values())
    with pytest.raises(BadOption, match=r"action_repeat.*task\.env"):
        open_pool(visuals={"action_repeat": {"count": 2}})


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        (options("missing"), UnknownTask, "missing"),
        ({**options(), "colour": 1}, BadOption, "vector.make_lanes.*colour"),
        (options("one_lane_too_many", lengths=(1,)), BadOption, "kwargs"),
    ],
)
def test_errors_of_construction_keep_their_type(kwargs, error, text):
    with pytest.raises(error, match=text):
        open_pool(kwargs=kwargs)


def test_close_ends_the_worker_and_leaves_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    pool = open_pool()
    pid = pool.pids[0]
    pool.close()
    pool.close()
    assert not Path(f"/proc/{pid}").exists() and len(os.listdir("/proc/self/fd")) == before


def test_a_configuration_opens_it():
    config = {"task": {"source": "vector", "env": options(), "visuals": {}}, "data": {"step_timeout_s": 30.0}}
    with environments.open_pool(config, 3) as pool:
        assert isinstance(pool, VectorPool) and sorted(pool.reset({0: 0, 1: 1, 2: 2})) == [0, 1, 2]
