from itertools import pairwise

import numpy as np
import pytest

from datamodules.envs import counting
from datamodules.envs.pool import EnvPool

A0 = (0.5, -0.25, 1.0, 0.0, -1.0)


def rows_of(env):
    """All rows of one episode whose k-th action starts with A0[k]."""
    rows = [env.reset(7)]
    while not rows[-1].is_last:
        rows.append(env.step(np.array([A0[len(rows) - 1], 0.9], np.float32)))
    return rows


@pytest.mark.parametrize(("repeat", "times"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5])])
def test_pixels_show_the_time_and_rewards_the_arrival(repeat, times):
    rows = rows_of(counting.make(action_repeat=repeat, episode_steps=5))
    assert [counting.decode(row.pixels) for row in rows] == [(time, 7) for time in times]
    arrivals = [range(before + 1, after + 1) for before, after in pairwise(times)]
    expected = [sum(100 * time + abs(a) for time in group) for group, a in zip(arrivals, A0, strict=False)]
    assert [row.reward for row in rows] == [0.0, *expected]
    assert [row.env_steps for row in rows] == [0, *(len(group) for group in arrivals)]


@pytest.mark.parametrize("terminal", [False, True])
def test_flags(terminal):
    rows = rows_of(counting.make(episode_steps=5, terminal=terminal))
    assert [row.is_first for row in rows] == [True] + [False] * 5
    assert [row.is_last for row in rows] == [False] * 5 + [True]
    assert [row.is_terminal for row in rows] == [False] * 5 + [terminal]


def test_long_times_are_encoded():
    assert counting.decode(counting.encode(70 * 256 + 3, 513, 8)) == (70 * 256 + 3, 1)


def test_two_workers_keep_their_rows_apart():
    with EnvPool(source="counting", kwargs={"episode_steps": 5}, count=2) as pool:
        pool.reset({0: 1, 1: 2})
        both = pool.step({1: np.array([0.5, 0]), 0: np.array([0.25, 0])})
        alone = pool.step({1: np.array([-1.0, 0])})
    assert {index: counting.decode(row.pixels) for index, row in both.items()} == {0: (1, 1), 1: (1, 2)}
    assert {index: row.reward for index, row in both.items()} == {0: 100.25, 1: 100.5}
    assert {index: row.reward for index, row in alone.items()} == {1: 201.0}
