"""Views that a seed fixes and simulations that blow up; all in workers, since GL must not enter this process."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.pool import EnvPool, VectorPool
from datamodules.envs.protocol import Fault
from datamodules.envs.supervised import FaultLimit

pytest.importorskip("gymnasium")
pytest.importorskip("imageio", reason="Gymnasium's MuJoCo tasks need it")

FOLDER = Path(__file__).parent


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log


def open_pool(task, *, seed=0, count=1, source="gym", **options):
    kwargs = {"task": task, "size": 32, **options}
    return (VectorPool if source == "vector" else EnvPool)(source=source, kwargs=kwargs, count=count, seed=seed)


def frames(pool, seed, steps=3):
    action = np.linspace(-1, 1, pool.spec.action_dim, dtype=np.float32)
    rows = [pool.reset({0: seed})[0], *(pool.step({0: action})[0] for _ in range(steps))]
    return np.stack([row.pixels for row in rows])


@pytest.mark.parametrize(
    ("task", "options", "view"),
    [
        ("HalfCheetah-v5", {}, "the model's camera 'track'"),
        ("Reacher-v5", {}, "a free camera that stands still"),
        ("HalfCheetah-v5", {"default_camera_config": {"distance": 6.0}}, "a free camera that stands still"),
        ("HalfCheetah-v5", {"camera_id": -1}, "a free camera that stands still"),
    ],
)
def test_a_seed_gives_the_same_frames_whatever_was_played_before(task, options, view):
    with open_pool(task, seed=1, kwargs=options) as one, open_pool(task, seed=2, kwargs=options) as other:
        frames(one, 0, steps=20)
        seen = frames(one, 7)
        np.testing.assert_array_equal(seen, frames(other, 7))
        assert one.notes == (f"frames are drawn by {view}; task.env.kwargs.camera_name chooses another",)
        assert (seen[0] != frames(one, 8)[0]).any()


def test_lanes_have_the_same_view():
    with open_pool("HalfCheetah-v5") as single, open_pool("HalfCheetah-v5", count=2, source="vector") as lanes:
        expected = frames(single, 7)[0]
        lanes.reset({0: 1, 1: 2})
        rows = lanes.reset({0: 7, 1: 7})
        np.testing.assert_array_equal(rows[0].pixels, expected)
        np.testing.assert_array_equal(rows[1].pixels, expected)
        assert "'track'" in lanes.notes[0]


def until_a_fault(pool, lanes=(0,)):
    """The rows of the first lane, and the faults of all."""
    action = np.zeros(pool.spec.action_dim, np.float32)
    rows = [pool.reset(dict.fromkeys(lanes, 3))]
    while not any(isinstance(row, Fault) for row in rows[-1].values()):
        assert not any(row.is_last for row in rows[-1].values())
        rows.append(pool.step(dict.fromkeys(lanes, action)))
    return rows


CASES = [
    ("gym", "mujoco_envs:BlowsUp", {"episode_steps": 50}),
    ("dmc", "dmc_envs:blows_up", {"look": "fast", "action_repeat": 1}),
    ("dmc", "dmc_envs:composed_blows_up", {"look": "fast", "action_repeat": 1}),
]


@pytest.mark.parametrize(("source", "task", "options"), CASES)
def test_a_simulation_that_blows_up_ends_its_episode_and_no_worker(source, task, options):
    with open_pool(task, source=source, kwargs={"at": 4}, **options) as pool:
        pids = pool.pids
        for _ in range(6):  # more often than a worker may be restarted
            rows = until_a_fault(pool)
            assert len(rows) == 5 and rows[-1][0].kind == "diverged" and "BADQVEL" in rows[-1][0].message
        assert pool.pids == pids


def test_one_that_blows_up_at_once_is_an_environments_fault():
    with open_pool("mujoco_envs:BlowsUp", kwargs={"at": 1}, episode_steps=50) as pool:
        pids = pool.pids
        assert until_a_fault(pool)[-1][0].kind == "exception"
        pool.reset({0: 1})
        assert pool.pids != pids


def test_a_lane_that_blows_up_ends_all_episodes():
    with open_pool("mujoco_envs:lanes", count=2, source="vector", kwargs={"at": 4}, episode_steps=50) as pool:
        pids = pool.pids
        for _ in range(6):
            rows = until_a_fault(pool, lanes=(0, 1))
            assert len(rows) == 5 and [row.kind for row in rows[-1].values()] == ["diverged"] * 2
        assert pool.pids == pids


def test_no_number_of_them_is_too_many():
    limit = FaultLimit(most=0)
    for _ in range(5):
        limit.count(Fault(0, "diverged", "again"))
