from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs import vector
from datamodules.envs.errors import BadAction, BadOption, BadReward, BadSpace, NotReset, UnknownTask
from datamodules.rollout import SmoothRandom, play

gymnasium = pytest.importorskip("gymnasium")

FOLDER = Path(__file__).parent
MODES = ("NextStep", "SameStep", "Disabled")
KINDS = [(task, mode) for task in ("sync_lanes", "NativeLanes") for mode in MODES]
LENGTHS = (4, 2, 3, 7)


@pytest.fixture
def envs(monkeypatch):
    """The module of test environments, importable here and in workers."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    import gym_envs

    return gym_envs


def open_lanes(task="sync_lanes", lanes=3, *, mode="NextStep", **options):
    kwargs = {"mode": mode, "lengths": LENGTHS, **options.pop("kwargs", {})}
    options = {"size": 16, "episode_steps": 50, **options}
    return vector.make_lanes(task=f"gym_envs:{task}", lanes=lanes, kwargs=kwargs, **options)


def record(pool, rounds=6, lanes=3):
    """All rows of some rounds of `play`, as episodes of (step, action)."""
    policy, episodes = SmoothRandom(pool.spec, rngs=[np.random.default_rng(lane) for lane in range(lanes)]), []
    for number in range(rounds):
        rows = {lane: [] for lane in range(lanes)}
        played = play(
            pool,
            policy,
            {lane: 100 * number + lane for lane in rows},
            on_row=lambda lane, step, action, rows=rows: rows[lane].append((step, action.copy())),
        )
        assert all(episode.fault is None for episode in played)
        episodes += rows.items()
    return episodes


def check_episode(envs, lane, rows, repeat=1, limit=50):
    """The rows are one whole episode of Watermarked, with nothing before, between or after."""
    marks = [envs.read(step.pixels) for step, _ in rows]
    episode = marks[0][1]
    length = LENGTHS[(episode + lane) % len(LENGTHS)]
    end = min(length, limit)
    times = [*range(0, end, repeat), end]
    assert marks == [(lane, episode, time) for time in times], marks
    assert [step.is_first for step, _ in rows] == [True] + [False] * (len(times) - 1)
    assert [step.is_last for step, _ in rows] == [False] * (len(times) - 1) + [True]
    terminal = end == length and episode % 2 == 0
    assert [step.is_terminal for step, _ in rows] == [False] * (len(times) - 1) + [terminal]
    assert [step.env_steps for step, _ in rows] == [0, *(after - before for before, after in pairwise(times))]
    for (step, action), (before, after) in zip(rows[1:], pairwise(times), strict=True):
        native = 2 + 2 * action[0]
        expected = sum(envs.reward_of(time, native) for time in range(before + 1, after + 1))
        assert step.reward == pytest.approx(expected, abs=1e-4)
    return episode


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize(("task", "mode"), KINDS)
def test_rows_are_exactly_the_true_transitions(envs, task, mode, repeat):
    pool = open_lanes(task, mode=mode, action_repeat=repeat)
    episodes = record(pool)
    seen = [(lane, check_episode(envs, lane, rows, repeat)) for lane, rows in episodes]
    assert len(set(seen)) == len(seen) == 18
    # lanes that had ended played on unseen, so numbers are left out
    assert max(number for _, number in seen) > 6


@pytest.mark.parametrize(("task", "mode"), KINDS)
def test_a_time_limit_of_ones_own_cuts_in_every_mode(envs, task, mode):
    pool = open_lanes(task, mode=mode, episode_steps=3)
    for lane, rows in record(pool):
        check_episode(envs, lane, rows, limit=3)


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_drawn_frames_are_those_of_the_rows(envs, mode):
    pool = open_lanes(mode=mode, pixels="render", kwargs={"observation": "vector", "render_mode": "rgb_array"})
    for lane, rows in record(pool, rounds=3):
        check_episode(envs, lane, rows)


def test_final_frames_that_cannot_be_drawn_are_refused(envs):
    with pytest.raises(BadOption, match=r"pixels.*image observations"):
        open_lanes(mode="SameStep", kwargs={"observation": "vector", "render_mode": "rgb_array"})


@pytest.mark.parametrize("kind", ["dict", "chw", "unit"])
def test_every_kind_of_image_in_every_mode(envs, kind):
    for mode in MODES:
        for lane, rows in record(open_lanes(mode=mode, kwargs={"observation": kind}), rounds=2):
            check_episode(envs, lane, rows)


@pytest.mark.parametrize("mode", MODES)
def test_a_lane_without_an_action_is_given_up(envs, mode):
    pool = open_lanes(mode=mode, lanes=2, kwargs={"lengths": (9,)})
    pool.reset({0: 1, 1: 1})
    assert list(pool.step({1: np.zeros(2)})) == [1]
    with pytest.raises(NotReset):
        pool.step({0: np.zeros(2), 1: np.zeros(2)})
    assert envs.read(pool.reset({0: 2})[0].pixels) == (0, 1, 0)
    rows = pool.step({0: np.zeros(2), 1: np.zeros(2)})
    assert [envs.read(rows[lane].pixels) for lane in (0, 1)] == [(0, 1, 1), (1, 0, 2)]


@pytest.mark.parametrize("mode", MODES)
def test_a_lane_is_reset_while_the_others_play(envs, mode):
    pool = open_lanes(mode=mode, lanes=2, kwargs={"lengths": (2, 9)})
    rows = {0: [pool.reset({0: 1, 1: 2})[0]], 1: []}
    episodes = []
    for _ in range(7):
        found = pool.step({0: np.zeros(2), 1: np.zeros(2)})
        rows[0].append(found[0])
        rows[1].append(found[1])
        if found[0].is_last:
            episodes.append(rows[0])
            rows[0] = [pool.reset({0: 7})[0]]
        if found[1].is_last:
            break
    assert [envs.read(step.pixels)[2] for step in rows[1]] == list(range(1, 1 + len(rows[1])))
    times = [[envs.read(step.pixels)[2] for step in rows] for rows in episodes]
    assert times[0] == [0, 1, 2] and rows[0][0].is_first and envs.read(rows[0][0].pixels)[2] == 0


def test_openings_in_hand_stand_in_for_a_mask(envs):
    pool = open_lanes("NativeLanes", 2, mode="SameStep", kwargs={"lengths": (1, 9)})
    pool.reset({0: 1, 1: 2})
    assert pool.step({0: np.zeros(2), 1: np.zeros(2)})[0].is_last
    opening = pool.reset({0: 3})[0]
    assert opening.is_first and envs.read(opening.pixels) == (0, 1, 0)
    pool = open_lanes("NativeLanes", 2, mode="NextStep", kwargs={"lengths": (1, 9)})
    pool.reset({0: 1, 1: 2})
    assert pool.step({0: np.zeros(2), 1: np.zeros(2)})[0].is_last
    with pytest.raises(BadOption, match=r"no reset mask.*\[0\].*while lanes \[1\]"):
        pool.reset({0: 3})
    pool.step({1: np.zeros(2)})
    opening = pool.reset({0: 3})[0]
    assert opening.is_first and envs.read(opening.pixels) == (0, 1, 0)


@pytest.mark.parametrize("mode", MODES)
def test_lanes_have_seeds_of_their_own(mode):
    make = lambda: vector.make_lanes(task="Pendulum-v1", lanes=2, size=16, autoreset=mode)  # noqa: E731
    if mode == "SameStep":
        with pytest.raises(BadOption, match="image observations"):
            make()
        return
    pools = make(), make()
    first = pools[0].reset({0: 4, 1: 5})
    pools[1].reset({0: 1, 1: 1})
    pools[1].step({0: np.zeros(1), 1: np.ones(1)})
    second = pools[1].reset({0: 5, 1: 4})
    for lane in (0, 1):
        np.testing.assert_array_equal(first[lane].pixels, second[1 - lane].pixels)
    assert (first[0].pixels != first[1].pixels).any()


def test_native_lanes_repeat_for_the_same_seeds():
    pool = vector.make_lanes(task="CartPole-v1", lanes=2, size=32, vectorization="native")
    assert pool.spec.episode_steps == 500 and pool.spec.discrete and pool.spec.action_dim == 2
    action = {0: np.float32([1, 0]), 1: np.float32([0, 1])}
    runs = []
    for seeds in ({0: 4, 1: 5}, {0: 4, 1: 5}, {0: 5, 1: 5}):
        rows = [pool.reset(seeds), *(pool.step(action) for _ in range(3))]
        runs.append(np.array([[row[lane].pixels for lane in (0, 1)] for row in rows]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_registered_lanes_terminate_and_the_limit_can_be_changed():
    for how in ("sync", "native"):
        pool = vector.make_lanes(task="CartPole-v1", lanes=2, size=16, vectorization=how, episode_steps=12)
        right = lambda pixels, is_first, ready: np.float32([[0, 1], [0, 0]])  # noqa: E731
        rows = {0: [], 1: []}
        play(pool, right, {0: 1, 1: 2}, on_row=lambda lane, step, action, rows=rows: rows[lane].append(step))
        assert all(found[-1].is_last and found[-1].is_terminal == (len(found) - 1 < 12) for found in rows.values())


def test_callers_mistakes_and_bad_values_are_typed(envs):
    pool = open_lanes(lanes=2)
    with pytest.raises(NotReset):
        pool.step({0: np.zeros(2)})
    pool.reset({0: 1, 1: 1})
    with pytest.raises(BadAction):
        pool.step({0: np.zeros(2), 1: np.full(2, np.nan)})
    spoilt = open_lanes(lanes=1, kwargs={"spoil": "reward"})
    spoilt.reset({0: 0})
    with pytest.raises(BadReward):
        spoilt.step({0: np.zeros(2)})


@pytest.mark.parametrize(
    ("task", "options", "error", "text"),
    [
        ("gym_envs:Watermarked", {"kwargs": {}}, BadOption, "num_envs"),
        ("gym_envs:one_lane_too_many", {}, UnknownTask, "VectorEnv with 2 lanes.*3 lanes"),
        ("gym_envs:no_mode", {}, BadOption, "autoreset"),
        ("CartPol-v1", {}, UnknownTask, "CartPole"),
        ("Pendulum-v1", {"vectorization": "native"}, BadOption, "use sync"),
        ("Pendulum-v1", {"vectorization": "async"}, BadOption, "source=gym runs processes"),
        ("Pendulum-v1", {"autoreset": "never"}, BadOption, "autoreset"),
        ("Pendulum-v1", {"pixels": "observation"}, BadSpace, "an image"),
    ],
)
def test_wrong_tasks_and_options_are_named(envs, task, options, error, text):
    with pytest.raises(error, match=text):
        vector.make_lanes(**{"task": task, "lanes": 2, **options})


def test_a_repeated_action_is_the_same_whatever_an_environment_does_to_it(envs):
    pool = vector.make_lanes(task="gym_envs:halving_lanes", lanes=2, size=16, episode_steps=50, action_repeat=4)
    pool.reset({0: 1, 1: 2})
    pool.step({lane: np.float32([0.4, 0.8]) for lane in range(2)})
    for env in pool.env.envs:
        np.testing.assert_allclose(env.actions, np.tile(np.float32([2.8, -1.2]), (4, 1)), rtol=1e-6)


def test_seeds_fit_into_31_bits(envs):
    own = vector.make_lanes(
        task="gym_envs:sync_lanes", lanes=2, size=16, episode_steps=50, kwargs={"kind": "SmallSeeds"}
    )
    native = vector.make_lanes(task="gym_envs:SmallSeedLanes", lanes=2, size=16, episode_steps=50)
    for seed in range(2**31 - 20, 2**31 + 20):
        own.reset({0: seed, 1: 2**32 - 1})
        native.reset({0: seed, 1: 2**32 - 1})
    assert own.env.envs[1].drawn == int(np.random.default_rng(2**31 - 1).integers(1000))


def test_a_seed_for_all_lanes_leaves_room_for_those_that_follow():
    seeds = [vector.shared_seed({0: number, 1: 7}, 2**31 - 10) for number in range(200)]
    assert set(seeds) == set(range(10))


@pytest.mark.parametrize("task", ["gymnasium.envs.classic_control:CartPole-v1", "CartPole"])
def test_ids_are_those_that_gymnasium_makes(task):
    for vectorization in ("sync", "native"):
        lanes = vector.make_lanes(task=task, lanes=2, size=16, vectorization=vectorization)
        assert lanes.spec.episode_steps == 500


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_lanes_read_whole_observations(envs, mode):
    pool = open_lanes(mode=mode, kwargs={"observation": "dict"})
    assert pool.spec.images == {"camera.front": (3, 16, 16)} and pool.spec.vectors == {"state": 3}
    still = np.zeros(2, np.float32)
    rows = [pool.reset({lane: lane for lane in range(3)})]
    while not any(row.is_last for row in rows[-1].values()):
        rows.append(pool.step(dict.fromkeys(rows[-1], still)))
    assert len(rows) > 2
    for time, row in enumerate(rows):
        for one in row.values():
            lane, episode, _ = mark = envs.read(one.observation["camera.front"])
            assert mark[2] == time and one.observation["state"].tolist() == [lane, episode, time]
