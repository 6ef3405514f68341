"""Tasks of one's own; all in workers, because Mesa's GL must not enter the process of the other tests."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.errors import BadOption, EnvError, UnknownTask
from datamodules.envs.pool import EnvPool

FOLDER = Path(__file__).parent
REST, PUSH = np.float32([-1.0]), np.float32([1.0])


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))


def open_pool(function, **options):
    kwargs = {"task": f"dmc_envs:{function}", "size": 32, "action_repeat": 3, "look": "fast", **options}
    return EnvPool(source="dmc", kwargs=kwargs, count=1)


def episode(pool, seed, action):
    rows = [pool.reset({0: seed})[0]]
    while not rows[-1].is_last:
        rows.append(pool.step({0: action})[0])
    return rows


@pytest.mark.parametrize(("function", "steps"), [("roll", 50), ("composed", 30)])
def test_a_task_of_ones_own_is_played_to_its_limit(function, steps):
    with open_pool(function) as pool:
        assert (pool.spec.task, pool.spec.episode_steps, pool.spec.action_dim) == (f"dmc_envs:{function}", steps, 1)
        still, moved, again = (episode(pool, seed, action) for seed, action in ((1, REST), (2, PUSH), (2, PUSH)))
    for rows in (still, moved):
        assert sum(row.env_steps for row in rows) == steps
        assert rows[-1].is_last and not rows[-1].is_terminal
    # -1 is the lower bound, no force: the ball stays where the seed put it, and so does the picture
    rewards = [row.reward / row.env_steps for row in still[1:]]
    assert np.ptp(rewards) < 1e-9 and (still[0].pixels == still[-1].pixels).all()
    # in later episodes too, a picture shows the present state
    assert (moved[0].pixels != moved[-1].pixels).any() and (moved[0].pixels != still[0].pixels).any()
    assert moved[-1].reward > moved[1].reward
    for mine, other in zip(moved, again, strict=True):
        np.testing.assert_array_equal(mine.pixels, other.pixels)
        assert mine.reward == other.reward


def test_arguments_reach_the_function_and_termination_is_one():
    with open_pool("roll", kwargs={"line": 0.6, "time_limit": 4.0}) as pool:
        assert pool.spec.episode_steps == 200
        rows = episode(pool, 1, PUSH)
    assert rows[-1].is_terminal and sum(row.env_steps for row in rows) < 200


def test_a_limit_of_ones_own_truncates():
    with open_pool("roll", episode_steps=7) as pool:
        rows = episode(pool, 1, PUSH)
    assert [row.env_steps for row in rows] == [0, 3, 3, 1] and not rows[-1].is_terminal


@pytest.mark.parametrize(
    ("task", "options", "error", "text"),
    [
        ("dmc_envs:missing", {}, UnknownTask, "'missing' in dmc_envs"),
        ("no_such_module:make", {}, UnknownTask, "no 'no_such_module'.*PYTHONPATH"),
        ("dmc_envs:Bodiless", {}, UnknownTask, "dm_control Environment.*Bodiless without physics"),
        ("dmc_envs:roll", {"kwargs": {"colour": 1}}, BadOption, "kwargs.*colour"),
        ("dmc_envs:roll", {"episode_steps": 0}, BadOption, "episode_steps"),
        ("cartpole_balance", {"kwargs": {"a": 1}}, BadOption, "kwargs.*suite"),
        ("dmc_envs:roll", {"camera": 1}, BadOption, r"camera.*0 \(side\), -1 \(free\)"),
        ("dmc_envs:fails", {}, EnvError, "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_it_is_said(task, options, error, text):
    with pytest.raises(error, match=text):
        EnvPool(source="dmc", kwargs={"task": task, **options}, count=1)


def test_a_held_action_is_the_same_whatever_a_task_does_to_it():
    with open_pool("halving", action_repeat=4) as pool:
        pool.reset({0: 1})
        assert pool.step({0: np.float32([0.5])})[0].reward == pytest.approx(4 * 3.0)
