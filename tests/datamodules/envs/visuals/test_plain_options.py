"""Frame stack, action repeat, time limit, resize and grayscale, each against what can be said in closed form."""

import numpy as np
import pytest

from datamodules.envs import counting
from datamodules.envs.errors import BadOption, NotReset
from datamodules.envs.sources import open_env, see_through
from datamodules.envs.visuals.grayscale import Grayscale
from worldmodel.spec import EnvSpec

ACTION = np.array([0.5, 0.0], np.float32)


class Still:
    """Shows the same frame [C, h, w] for ever."""

    def __init__(self, frame):
        self._frame = np.asarray(frame, np.uint8)
        self.spec = EnvSpec("still", {"pixels": self._frame.shape}, action_dim=2, action_repeat=1, episode_steps=3)

    def reset(self, seed):
        return counting.Step({"pixels": self._frame.copy()}, 0.0, True, False, False, 0)

    def step(self, action):
        raise NotImplementedError

    def close(self):
        pass


def seen(pixels):
    """Times in a stack of counting frames, oldest first."""
    return [counting.decode(frame)[0] for frame in pixels.reshape(-1, 3, *pixels.shape[1:])]


def rows_of(visuals, **kwargs):
    """The environment and the rows of its first episode."""
    env = open_env(source="counting", kwargs=kwargs, visuals=visuals)
    rows = [env.reset(0)]
    while not rows[-1].is_last:
        rows.append(env.step(ACTION))
    return env, rows


def test_frame_stack_shifts_and_a_reset_refills_it():
    env = open_env(source="counting", kwargs={}, visuals={"frame_stack": {"count": 3}})
    assert env.spec.pixels == (9, 16, 16)
    rows = [env.reset(0), *(env.step(ACTION) for _ in range(4))]
    expected = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert [seen(row.pixels) for row in rows] == expected
    assert seen(env.reset(0).pixels) == [0, 0, 0]


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env, rows = rows_of({"action_repeat": {"count": 3}}, episode_steps=10, action_repeat=2)
    assert env.spec.action_repeat == 6 and env.spec.episode_decisions == 2
    assert [row.env_steps for row in rows] == [0, 6, 4]
    first, second = range(1, 7), range(7, 11)
    assert [row.reward for row in rows] == [0, *(sum(100 * t + 0.5 for t in group) for group in (first, second))]
    assert [counting.decode(row.pixels)[0] for row in rows] == [0, 6, 10]
    assert [row.is_last for row in rows] == [False, False, True]


def test_time_limit_truncates_at_the_decision_that_reaches_it():
    env, rows = rows_of({"time_limit": {"env_steps": 5}}, action_repeat=2)
    assert env.spec.episode_steps == 5
    assert [row.is_last for row in rows] == [False, False, False, True]
    assert not any(row.is_terminal for row in rows)
    with pytest.raises(NotReset):
        env.step(ACTION)
    assert not env.reset(1).is_last and not env.step(ACTION).is_last


def test_time_limit_keeps_an_earlier_termination():
    _, rows = rows_of({"time_limit": {"env_steps": 3}}, episode_steps=3, terminal=True)
    assert [(row.is_last, row.is_terminal) for row in rows] == [(False, False)] * 3 + [(True, True)]


def test_grayscale_is_the_luma_of_each_view():
    primaries = np.zeros((6, 1, 4))
    primaries[:3, 0, :3] = 255 * np.eye(3)
    primaries[:3, 0, 3] = 255
    primaries[3:, 0, 0] = (10, 20, 30)
    env = Grayscale(Still(primaries))
    assert env.spec.pixels == (2, 1, 4)
    grey = env.reset(0).pixels
    assert grey[0, 0].tolist() == [76, 150, 29, 255]  # round(255 * weight)
    assert grey[1, 0].tolist() == [round(0.299 * 10 + 0.587 * 20 + 0.114 * 30), 0, 0, 0]


def test_resize_shrinks_to_means_and_grows_to_nearest():
    toy = open_env(source="toy", kwargs={"size": 64}).reset(3).pixels
    small, large = (
        open_env(source="toy", kwargs={"size": 64}, visuals={"resize": {"size": size}}) for size in (16, 128)
    )
    assert small.spec.pixels == (3, 16, 16)
    # rows and columns are averaged one after the other, each rounded by at most a half
    np.testing.assert_allclose(small.reset(3).pixels, toy.reshape(3, 16, 4, 16, 4).mean((2, 4)), atol=1.0)
    np.testing.assert_array_equal(large.reset(3).pixels, toy.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize(
    ("visuals", "message"),
    [
        ({"frame_stack": {"count": 0}}, r"visuals.frame_stack.count: expected a whole number of at least 1, got 0"),
        ({"frame_stack": {"count": 2.0}}, "frame_stack.count"),
        ({"action_repeat": {"count": "x"}}, "action_repeat.count"),
        ({"time_limit": {"env_steps": 0}}, "time_limit.env_steps"),
        ({"time_limit": {"env_steps": 11}}, "at most the task's 10, got 11"),
        ({"time_limit": {}}, "visuals.time_limit: missing a required argument: 'env_steps'"),
        ({"resize": {"size": 0}}, "resize.size"),
        ({"grayscale": {"weights": 1}}, "visuals.grayscale.*weights"),
        ({"grayscale": None}, "visuals.grayscale"),
        (
            {"grayscale": {}, "frame_stack": {"count": 3}, "resize": {}, "greyscale": {}},
            "no option 'greyscale'.*grayscale",
        ),
    ],
)
def test_bad_options_are_named(visuals, message):
    with pytest.raises(BadOption, match=message):
        open_env(source="counting", kwargs={}, visuals=visuals)


def test_an_action_that_is_held_is_the_same_whatever_an_environment_does_to_it():
    class Halving(counting.CountingEnv):
        def step(self, action):
            row = super().step(action)
            action *= 0.5
            return row

    inner = counting.make()
    inner.__class__ = Halving
    env = see_through(inner, {"action_repeat": {"count": 4}})
    env.reset(0)
    action = np.full(2, 0.8, np.float32)
    assert env.step(action).reward == pytest.approx(100 * 10 + 4 * 0.8) and action[0] == np.float32(0.8)
