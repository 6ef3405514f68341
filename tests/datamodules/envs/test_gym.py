"""Rows of Gymnasium environments are the environments' own, whatever their wrappers and workers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs import gym
from datamodules.envs.errors import (
    BadAction,
    BadObservation,
    BadOption,
    BadReward,
    BadSpace,
    MissingPackage,
    NotReset,
    UnknownTask,
    WorkerLost,
)
from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault
from datamodules.envs.spaces import choose_observer

gymnasium = pytest.importorskip("gymnasium")
from gymnasium import spaces  # noqa: E402

FOLDER = Path(__file__).parent
MIDDLE = np.zeros(2, np.float32)


@pytest.fixture
def envs(monkeypatch):
    """The module of test environments, importable here and in workers."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    import gym_envs

    return gym_envs


def make(task="gym_envs:Watermarked", **options):
    return gym.make(**{"task": task, "size": 16, "episode_steps": 50, **options})


def play(env, count, action=MIDDLE):
    rows = [env.reset(3)]
    while len(rows) <= count and not rows[-1].is_last:
        rows.append(env.step(action))
    return rows


def test_an_environment_can_be_made_anew_for_every_episode(envs):
    """Each of these counts its own episodes: what one's reset keeps no other one has."""
    env = make(remake=True)
    assert [envs.read(env.reset(seed).pixels)[1] for seed in (3, 3, 4)] == [0, 0, 0]
    kept = make()
    assert [envs.read(kept.reset(seed).pixels)[1] for seed in (3, 3, 4)] == [0, 1, 2]
    with pytest.raises(BadOption, match="remake: expected true or false, got 1"):
        make(remake=1)


def test_rows_are_the_environments_own(envs):
    env = make(kwargs={"lane": 1, "lengths": (3,)})
    for episode in range(2):
        rows = play(env, 10)
        assert [envs.read(row.pixels) for row in rows] == [(1, episode, step) for step in range(4)]
        assert [row.reward for row in rows] == [0.0, *(envs.reward_of(step, 2.0) for step in (1, 2, 3))]
        assert [row.is_first for row in rows] == [True, False, False, False]
        assert [row.is_last for row in rows] == [False, False, False, True]
        # the first episode terminates, the second is truncated
        assert [row.is_terminal for row in rows] == [False, False, False, episode == 0]
        assert [row.env_steps for row in rows] == [0, 1, 1, 1]
    with pytest.raises(NotReset):
        env.step(MIDDLE)


def test_action_repeat_sums_rewards_and_stops_at_the_end(envs):
    rows = play(make(action_repeat=2, kwargs={"lengths": (3,)}), 10)
    assert [envs.read(row.pixels)[2] for row in rows] == [0, 2, 3]
    assert [row.reward for row in rows] == [0.0, 10 + 20 + 4, 30 + 2]
    assert [row.env_steps for row in rows] == [0, 2, 1]
    assert rows[-1].is_last and rows[-1].is_terminal


def test_a_time_limit_truncates_and_termination_at_the_limit_stays_one(envs):
    rows = play(make(episode_steps=5, action_repeat=2, kwargs={"lengths": (9,)}), 10)
    assert [row.env_steps for row in rows] == [0, 2, 2, 1]
    assert (rows[-1].is_last, rows[-1].is_terminal) == (True, False)
    rows = play(make(episode_steps=3, kwargs={"lengths": (3,)}), 10)
    assert (rows[-1].is_last, rows[-1].is_terminal) == (True, True)


@pytest.mark.parametrize("kind", ["image", "chw", "unit", "dict", "vector"])
def test_every_way_to_a_frame_gives_the_same(envs, kind):
    rows = play(make(kwargs={"observation": kind}), 2)
    assert [envs.read(row.pixels) for row in rows] == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]
    assert all(row.pixels.shape == (3, 16, 16) and row.pixels.dtype == np.uint8 for row in rows)


def test_rows_keep_their_frames_and_videos_show_the_image_before_it_was_resized(envs):
    env = make(size=32)
    rows = play(env, 2)
    assert [envs.read(row.pixels)[2] for row in rows] == [0, 1, 2]
    np.testing.assert_array_equal(env.render(16), envs.watermark(0, 0, 2))
    assert env.render(40).shape == (40, 40, 3)


def test_a_key_chooses_one_of_several_images(envs):
    assert make(image_key="right", kwargs={"observation": "two"}).spec.pixels == (3, 16, 16)
    assert make(image_key="camera/front", kwargs={"observation": "dict"}).spec.pixels == (3, 16, 16)
    with pytest.raises(BadOption, match=r"image_key.*left.*'middle'"):
        make(image_key="middle", kwargs={"observation": "two"})


def test_discrete_environments_get_their_own_numbers(envs):
    env = make("gym_envs:Discrete")
    assert env.spec.discrete and env.spec.action_dim == 3
    rows = play(env, 1, np.float32([-0.2, -0.1, -0.3]))
    assert rows[1].reward == envs.reward_of(1, 6)


@pytest.mark.parametrize(
    ("task", "options", "error", "text"),
    [
        ("CartPol-v1", {}, UnknownTask, "CartPole"),
        ("Unheard-v0", {}, UnknownTask, "package:Name-v0.*got 'Unheard-v0'"),
        ("no_such_module:make", {}, UnknownTask, "no_such_module.*PYTHONPATH"),
        ("no_such_module:Env-v0", {}, UnknownTask, "no_such_module"),
        ("gym_envs:Missing", {}, UnknownTask, "'Missing' in gym_envs"),
        ("os:getcwd", {}, UnknownTask, "gymnasium.Env from os:getcwd, got a builtins.str"),
        ("gym_envs:Watermarked", {"episode_steps": None}, BadOption, "episode_steps.*registered with no time limit"),
        ("gym_envs:Watermarked", {"kwargs": {"colour": 1}}, BadOption, "kwargs.*colour"),
        ("gym_envs:Watermarked", {"pixels": "camera"}, BadOption, "pixels"),
        ("gym_envs:Watermarked", {"size": 8}, BadOption, "size"),
        ("gym_envs:Watermarked", {"action_repeat": 0}, BadOption, "action_repeat"),
        ("gym_envs:Watermarked", {"episode_steps": 0}, BadOption, "episode_steps"),
        ("gym_envs:Watermarked", {"pixels": "observation", "kwargs": {"observation": "vector"}}, BadSpace, "an image"),
        (
            "gym_envs:Watermarked",
            {"kwargs": {"observation": "vector", "render_mode": None}},
            BadSpace,
            "rgb_array.*; observe=state reads its numbers",
        ),
    ],
)
def test_wrong_tasks_and_options_are_named(envs, task, options, error, text):
    with pytest.raises(error, match=text):
        make(task, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="SDL's driver without a screen is chosen on Linux")
def test_games_that_draw_nothing_for_a_dummy_screen_are_drawn(envs, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.delenv("SDL_VIDEODRIVER")  # and whatever is set in between is taken back
    assert make("gym_envs:Highway").reset(3).observation["pixels"].any()


def test_bad_rewards_and_frames_are_typed(envs):
    for spoil, error in {"reward": BadReward, "pixels": BadObservation}.items():
        env = make(kwargs={"observation": "unit", "spoil": spoil})
        env.reset(0)
        with pytest.raises(error, match="nan"):
            env.step(MIDDLE)
    env = make(pixels="render", kwargs={"spoil": "render"})
    with pytest.raises(BadObservation, match=r"render: expected uint8.*NoneType"):
        env.reset(0)
    env = make()
    env.reset(0)
    with pytest.raises(BadAction):
        env.step(np.array([np.nan, 0]))


def test_an_environment_of_the_older_interface_is_told_the_newer_one(envs):
    with pytest.raises(
        BadObservation, match=r"reset: expected a tuple of observation, info as Gymnasium .* got ndarray"
    ):
        make("gym_envs:OldReset").reset(0)
    env = make("gym_envs:OldStep")
    env.reset(0)
    with pytest.raises(BadObservation, match=r"step: expected .* terminated, truncated, info .* got a tuple of 4"):
        env.step(MIDDLE)


def test_bad_rewards_never_leave_a_pool(envs):
    kwargs = {"task": "gym_envs:Watermarked", "size": 16, "episode_steps": 9, "kwargs": {"spoil": "reward"}}
    with EnvPool(source="gym", kwargs=kwargs, count=1) as pool:
        pool.reset({0: 0})
        row = pool.step({0: MIDDLE})[0]
    assert isinstance(row, Fault) and "finite" in row.message


def test_a_missing_package_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingPackage, match=r"^Gymnasium is not installed: run `pip install 'worldmodel\[gym\]'`$"):
        gym.make(task="CartPole-v1")


def test_a_registered_environment_by_rendering_in_a_worker_is_the_same_for_a_seed():
    kwargs = {"task": "Pendulum-v1", "size": 32, "action_repeat": 2}
    env = gym.make(**kwargs)
    assert (env.spec.episode_steps, env.spec.action_dim, env.spec.discrete) == (200, 1, False)
    action = np.float32([0.7])
    mine = [env.reset(5), env.step(action), env.reset(5), env.step(action), env.reset(6)]
    with EnvPool(source="gym", kwargs=kwargs, count=1) as pool:
        theirs = [pool.reset({0: 5})[0], pool.step({0: action})[0]]
        assert pool.render(0, 100).shape == (100, 100, 3)
    for rows in (mine[2:4], theirs):
        np.testing.assert_array_equal([row.pixels for row in rows], [row.pixels for row in mine[:2]])
        assert rows[1].reward == mine[1].reward
    assert (mine[4].pixels != mine[0].pixels).any()


def test_cartpole_terminates_and_its_limit_can_be_changed():
    env = gym.make(task="CartPole-v1", size=16)
    rows = play(env, 500, np.float32([0, 1]))
    assert env.spec.episode_steps == 500 and env.spec.discrete
    assert rows[-1].is_terminal and sum(row.reward for row in rows) == len(rows) - 1
    rows = play(gym.make(task="CartPole-v1", size=16, episode_steps=4), 500, np.float32([0, 1]))
    assert len(rows) == 5 and rows[-1].is_last and not rows[-1].is_terminal
    assert gym.make(task="CartPole-v1", episode_steps=700).spec.episode_steps == 700


def test_sources_import_gymnasium_only_when_they_use_it():
    code = "import datamodules.envs.gym, sys; assert not {'gymnasium', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_repeated_action_is_the_same_whatever_an_environment_does_to_it(envs):
    env = make("gym_envs:Halving", action_repeat=4)
    play(env, 1, np.float32([0.4, 0.8]))
    middle, half = np.float32([2.0, -2.0]), np.float32([2.0, 1.0])
    np.testing.assert_allclose(env.env.actions, np.tile(middle + half * np.float32([0.4, 0.8]), (4, 1)), rtol=1e-6)


@pytest.mark.parametrize("seed", [2**31 - 1, 2**31, 2**32 - 1])
def test_seeds_fit_into_31_bits(envs, seed):
    env = make("gym_envs:SmallSeeds")
    env.reset(seed)
    assert env.env.drawn == int(np.random.default_rng(seed % 2**31).integers(1000))


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        ("gym_envs:gym_envs/Marked-v0", 7),
        ("gym_envs/Marked-v0", 7),
        ("gym_envs/Marked", 8),
        ("gym_envs:MarkedEnv", 9),
        ("gymnasium.envs.classic_control:CartPole-v1", 500),
        ("CartPole", 500),
    ],
)
def test_ids_are_those_that_gymnasium_makes(envs, task, limit):
    assert make(task, episode_steps=None).spec.episode_steps == limit


def test_what_is_not_read_of_an_observation_is_said(envs):
    for kind in ("dict", "two", "image", "vector"):
        assert make(kwargs={"observation": kind}).notes == ()
    (note,) = make(image_key="left", kwargs={"observation": "two"}).notes
    assert note == "not read of the observation: right (Box); task.env.observe says what is"
    (note,) = make(observe="pixels", kwargs={"observation": "dict"}).notes
    assert "observation: state (Box);" in note
    (note,) = make(observe=["state"], kwargs={"observation": "dict"}).notes
    assert "observation: camera.front (Box);" in note
    space = spaces.Dict({"eye": spaces.Box(0, 255, (16, 16, 3), np.uint8), "text": spaces.Text(4)})
    assert "observation: text (Text);" in choose_observer(space, None).notes[0]


def test_workers_carry_a_whole_observation(envs):
    options = {"task": "gym_envs:Watermarked", "size": 16, "episode_steps": 9, "kwargs": {"observation": "dict"}}
    with EnvPool(source="gym", kwargs=options, count=1) as pool:
        assert pool.spec.images == {"camera.front": (3, 16, 16)} and pool.spec.vectors == {"state": 3}
        row = pool.reset({0: 0})[0]
        assert envs.read(row.observation["camera.front"])[2] == 0 and row.observation["state"].shape == (3,)
    with EnvPool(source="gym", kwargs={**options, "observe": "state"}, count=1) as pool:
        assert pool.spec.images == {} and pool.reset({0: 0})[0].observation.keys() == {"state"}


def test_notes_reach_the_pool_through_visual_options(envs):
    kwargs = {
        "task": "gym_envs:Watermarked",
        "size": 16,
        "episode_steps": 9,
        "kwargs": {"observation": "dict"},
        "observe": "pixels",
    }
    with EnvPool(source="gym", kwargs=kwargs, visuals={"grayscale": {}}, count=1) as pool:
        assert "state (Box)" in pool.notes[0]


def test_an_environments_own_error_keeps_its_traceback(envs, capfd):
    kwargs = {"task": "gym_envs:Keyless", "size": 16, "episode_steps": 9}
    with EnvPool(source="gym", kwargs=kwargs, count=1, max_restarts=0) as pool:
        pool.reset({0: 0})
        with pytest.raises(WorkerLost, match="exception: KeyError: 'gripper'") as caught:
            pool.step({0: MIDDLE})
    for text in (caught.value.trace, capfd.readouterr().err):
        assert "gym_envs.py" in text and "in step" in text and text.rstrip().endswith("KeyError: 'gripper'")
    with pytest.raises(BadOption) as caught:
        EnvPool(source="gym", kwargs={**kwargs, "episode_steps": 0}, count=1)
    assert caught.value.trace == capfd.readouterr().err == ""
