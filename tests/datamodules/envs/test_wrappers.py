import numpy as np
import pytest

from datamodules.envs import counting, wrappers
from datamodules.envs.errors import BadOption, NotReset, UnknownSource
from datamodules.envs.pool import EnvPool

ACTION = np.zeros(2, np.float32)


def seen(pixels):
    """Times in a stack of counting frames, oldest first."""
    return [counting.decode(frame)[0] for frame in pixels.reshape(-1, 3, *pixels.shape[1:])]


def test_frame_stack_shifts_and_a_reset_refills_it():
    env = wrappers.make(source="counting", frame_stack=3)
    assert env.spec.pixels == (9, 16, 16)
    assert seen(env.reset(0).pixels) == [0, 0, 0]
    assert [seen(env.step(ACTION).pixels) for _ in range(4)] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert seen(env.reset(0).pixels) == [0, 0, 0]


def test_time_limit_truncates_at_the_decision_that_reaches_it():
    env = wrappers.make(source="counting", time_limit=5, action_repeat=2)
    env.reset(0)
    rows = [env.step(ACTION) for _ in range(env.spec.episode_decisions)]
    assert [row.is_last for row in rows] == [False, False, True]
    assert not any(row.is_terminal for row in rows)
    with pytest.raises(NotReset):
        env.step(ACTION)


def test_time_limit_keeps_an_earlier_termination():
    env = wrappers.TimeLimit(counting.make(episode_steps=3, terminal=True), 3)
    env.reset(0)
    rows = [env.step(ACTION) for _ in range(3)]
    assert [(row.is_last, row.is_terminal) for row in rows] == [(False, False), (False, False), (True, True)]


def test_grayscale_is_the_luma():
    env = wrappers.make(source="toy", grayscale=True)
    grey, colour = env.reset(0).pixels, env.env.reset(0).pixels.astype(float)
    assert grey.shape == env.spec.pixels == (1, 64, 64)
    np.testing.assert_allclose(grey[0], 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2], atol=0.51)


def test_wrapped_sources_run_in_workers_and_render_passes_through():
    with EnvPool(source="wrappers", kwargs={"source": "toy", "frame_stack": 2, "size": 32}, count=1) as pool:
        assert pool.reset({0: 0})[0].pixels.shape == pool.spec.pixels == (6, 32, 32)
        assert pool.render(0, 100).shape == (100, 100, 3)


@pytest.mark.parametrize("options", [{"frame_stack": 0}, {"time_limit": 0}, {"time_limit": 11}, {"speed": 1.0}])
def test_bad_options(options):
    with pytest.raises(BadOption, match=next(iter(options))):
        wrappers.make(source="counting", **options)


@pytest.mark.parametrize("source", ["os", "os.path", "..replay", "pool", "gym/../toy", ""])
def test_only_modules_of_this_folder_with_make_are_sources(source):
    with pytest.raises(UnknownSource):
        wrappers.make(source=source)
