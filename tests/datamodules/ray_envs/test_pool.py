"""Environments on nodes of Ray: the rows of a local pool, and faults where a worker or its machine is lost."""

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs import counting
from datamodules.envs.errors import BadOption, WorkerLost
from datamodules.envs.pool import EnvPool, VectorPool
from datamodules.envs.protocol import MeasuresTraffic
from datamodules.ray_envs.pool import RayEnvPool, RayVectorPool
from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.rollout import SmoothRandom, play

ACTION = np.array([0.5, 0.0], np.float32)
COUNTING = {"source": "counting", "kwargs": {"episode_steps": 8}}
TOY = {"source": "toy", "kwargs": {"size": 32, "episode_steps": 20}}


@pytest.fixture(scope="module", autouse=True)
def nodes():
    pytest.importorskip("ray")
    from tests.ray_nodes import ray_nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "envs"))  # of LANES, on every node
        with ray_nodes(2) as nodes:
            yield nodes


def played(pool, seeds):
    """Every row of an episode of each of {index: seed}, by index."""
    rows = {index: [] for index in seeds}
    policy = SmoothRandom(pool.spec, rngs=[np.random.default_rng(index) for index in seeds])
    episodes = play(pool, policy, seeds, on_row=lambda index, row, action: rows[index].append((row, action)))
    return rows, episodes


def require_same(ours, theirs):
    for index, episode in ours.items():
        assert len(episode) == len(theirs[index]) > 3
        for (mine, action), (their, other) in zip(episode, theirs[index], strict=True):
            assert mine.observation.keys() == their.observation.keys()
            for name, values in mine.observation.items():
                np.testing.assert_array_equal(values, their.observation[name])
            np.testing.assert_array_equal(action, other)
            facts = ("reward", "is_first", "is_last", "is_terminal", "env_steps")
            assert [getattr(mine, fact) for fact in facts] == [getattr(their, fact) for fact in facts]


def test_rows_are_those_of_the_local_pool_and_bytes_are_counted():
    with EnvPool(**TOY, count=2, seed=3) as here, RayEnvPool(**TOY, count=2, seed=3) as there:
        assert there.spec == here.spec and isinstance(there, MeasuresTraffic) and not isinstance(here, MeasuresTraffic)
        ours, theirs = (played(pool, {0: 5, 1: 6})[0] for pool in (here, there))
        require_same(ours, theirs)
        traffic = there.traffic()
        frames = sum(map(len, theirs.values())) * 32 * 32 * 3 / 1e6
        assert frames < traffic["network/mb"] < 1.5 * frames and traffic["network/mb_per_s"] > 0
        assert there.traffic() == {"network/mb": traffic["network/mb"], "network/mb_per_s": 0.0}
        np.testing.assert_array_equal(there.render(1, 100), here.render(1, 100))
        assert there.traffic()["network/mb"] - traffic["network/mb"] == pytest.approx(0.03, rel=0.01)


def test_what_an_environment_refuses_is_said_as_in_a_local_pool():
    with pytest.raises(BadOption) as ours:
        EnvPool(source="toy", kwargs={"size": 1}, count=1)
    with pytest.raises(BadOption) as theirs:
        RayEnvPool(source="toy", kwargs={"size": 1}, count=1)
    assert str(theirs.value) == str(ours.value)


def test_a_killed_worker_is_a_fault_and_restarts_while_others_go_on():
    with RayEnvPool(**COUNTING, count=2) as pool:
        pool.reset({0: 0, 1: 1})
        os.kill(pool.pids[0], signal.SIGKILL)
        rows = pool.step({0: ACTION, 1: ACTION})
        rows |= pool.step({}) if len(rows) < 2 else {}
        assert (rows[0].index, rows[0].kind) == (0, "death") and "SIGKILL" in rows[0].message
        assert counting.decode(rows[1].pixels) == (1, 1)
        assert counting.decode(pool.reset({0: 9})[0].pixels) == (0, 9)


def test_a_worker_that_hangs_is_given_up():
    with RayEnvPool(**COUNTING, count=1, step_timeout_s=0.5) as pool:
        pool.reset({0: 0})
        os.kill(pool.pids[0], signal.SIGSTOP)
        assert pool.step({0: ACTION})[0].kind == "timeout"
        assert counting.decode(pool.reset({0: 9})[0].pixels) == (0, 9)


def test_more_environments_than_cpus_are_refused_in_time():
    with pytest.raises(WorkerLost, match="had a free CPU"):
        RayEnvPool(**COUNTING, count=3, reset_timeout_s=2.0)


@pytest.mark.slow
def test_episodes_of_a_lost_node_are_truncated_and_its_environments_start_elsewhere(nodes, tmp_path):
    with RayEnvPool(source="counting", kwargs={"episode_steps": 500}, count=2) as pool:
        replay = Replay(spec=pool.spec, capacity=10_000, streams=2, folder=tmp_path)
        policy = SmoothRandom(pool.spec, rngs=[np.random.default_rng(index) for index in range(2)])
        turns, faults = iter(range(10**6)), []

        def on_turn():
            if next(turns) == 4:
                nodes.kill(nodes.nodes[0])
            time.sleep(0.0 if faults else 0.03)  # the cluster's death is slower than an episode of counting

        def on_fault(fault):
            faults.append(fault)
            replay.truncate(fault.index)

        options = {"on_row": replay.append, "on_fault": on_fault}
        first = play(pool, policy, {0: 1, 1: 2}, on_turn=on_turn, **options)
        nodes.nodes.append(nodes.add())
        second = play(pool, policy, {0: 3, 1: 4}, **options)
        replay.close()
    (lost,) = (episode for episode in first if episode.fault is not None)
    assert lost.fault.kind == "death" and "actor" in lost.fault.message and 3 < lost.decisions < 500
    assert [episode.decisions for episode in (*first, *second) if episode is not lost] == [500] * 3
    with closing(Recorded(tmp_path)) as recorded:
        ends = sorted((len(one.reward), one.terminal) for one in recorded.trajectories())
    assert ends == [(lost.decisions + 1, False), *[(501, False)] * 3]


def test_lanes_are_those_of_the_local_pool():
    pytest.importorskip("gymnasium")
    lanes = {"task": "gym_envs:sync_lanes", "size": 16, "episode_steps": 50, "kwargs": {"lengths": (4, 5, 6)}}
    options = {"source": "vector", "kwargs": lanes, "count": 3}
    with VectorPool(**options) as here, RayVectorPool(**options) as there:
        ours, theirs = (played(pool, {0: 5, 1: 6, 2: 7})[0] for pool in (here, there))
        require_same(ours, theirs)
        np.testing.assert_array_equal(there.render(2, 16), here.render(2, 16))
