"""The action that moved the point mass is found where it is stored, and nothing is found where nothing is to find."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from datamodules.alignment import Alignment, check_alignment
from datamodules.envs import toy
from datamodules.rollout import SmoothRandom
from datamodules.trajectory import Trajectory
from tests.datamodules.envs.test_toy import optimal_action

Choose = Callable[[toy.PointEnv, np.random.Generator, SmoothRandom], np.ndarray]
POLICIES: dict[str, Choose] = {
    "smooth": lambda env, rng, noise: noise({}, np.zeros(1, bool), np.ones(1, bool))[0],
    "noisy expert": lambda env, rng, noise: np.clip(
        0.5 * optimal_action(env.state) + rng.normal(0, 0.3, 2), -1, 1
    ).astype(np.float32),
}


def play(seed: int, choose: Choose, episodes: int = 30, steps: int = 40) -> list[Trajectory]:
    env = toy.make(size=16, episode_steps=steps)
    rng = np.random.default_rng(seed)
    return [_episode(env, rng, choose) for _ in range(episodes)]


def _episode(env: toy.PointEnv, rng: np.random.Generator, choose: Choose) -> Trajectory:
    noise = SmoothRandom(env.spec, rngs=[rng])
    steps, actions = [env.reset(int(rng.integers(1 << 30)))], [np.zeros(2, np.float32)]
    while not steps[-1].is_last:
        actions.append(choose(env, rng, noise))
        steps.append(env.step(actions[-1]))
    pixels = np.stack([step.pixels for step in steps])
    reward = np.array([step.reward for step in steps], np.float32)
    return Trajectory({"pixels": pixels}, np.stack(actions), reward, False, np.ones(len(steps), np.int32))


def stored(trajectories: list[Trajectory], shift: int) -> list[Trajectory]:
    """As if row t + shift held the action that led to row t."""
    return [replace(one, action=np.roll(one.action, shift, 0)) for one in trajectories]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_truth_is_found_for_every_seed(policy):
    for seed in range(20):
        trajectories = play(seed, POLICIES[policy])
        for shift, verdict in ((0, "arrival"), (-1, "departure")):
            found = check_alignment(stored(trajectories, shift))
            assert found.verdict == verdict and found.shift == shift, (seed, found)
            assert found.scores[shift] > 3 * max(s for k, s in found.scores.items() if k != shift), found
    assert check_alignment(stored(trajectories, 1)).verdict == "late"


def steered(seed: int, *, steps: int = 40, nose: bool = True) -> Trajectory:
    """A robot that is seen from above: one action turns its heading, the other changes its speed."""
    rng, side = np.random.default_rng(seed), 32
    place, heading, speed = rng.uniform(0.35, 0.65, 2), rng.uniform(-np.pi, np.pi), rng.uniform(0.005, 0.02)
    actions = np.zeros((steps + 1, 2), np.float32)
    actions[1:] = rng.uniform(-1, 1, (steps, 2))
    ys, xs = np.mgrid[:side, :side] / side
    frames = np.full((steps + 1, 3, side, side), 40, np.uint8)
    for frame, action in zip(frames, actions, strict=True):
        heading, speed = heading + 0.3 * action[0], np.clip(speed + 0.004 * action[1], 0, 0.03)
        ahead = np.array([np.cos(heading), np.sin(heading)])
        place = np.clip(place + speed * ahead, 0.1, 0.9)
        for channel, (x, y), radius in ((0, place, 0.07), (1, place + 0.08 * ahead, 0.04))[: 1 + nose]:
            cover = np.clip((radius - np.hypot(xs - x, ys - y)) * side + 0.5, 0, 1)
            frame[channel] = np.maximum(frame[channel], 40 + 200 * cover)
    return Trajectory({"pixels": frames}, actions, np.ones(steps + 1, np.float32), False, np.ones(steps + 1, np.int32))


@pytest.mark.parametrize("nose", [True, False])
def test_an_effect_that_depends_on_how_things_move_is_seen(nose):
    trajectories = [steered(seed, nose=nose) for seed in range(40)]
    for shift, verdict in ((0, "arrival"), (-1, "departure"), (1, "late")):
        found = check_alignment(stored(trajectories, shift))
        assert found.verdict == verdict and found.t > 6, found
    shuffled = [replace(one, action=trajectories[k - 7].action) for k, one in enumerate(trajectories)]
    assert check_alignment(shuffled).verdict == "undecided"


def test_what_cannot_be_told_has_its_reason():
    trajectories = play(0, POLICIES["smooth"], episodes=10)
    still = [replace(one, observation={"pixels": np.zeros_like(one.pixels)}) for one in trajectories]
    constant = [replace(one, action=np.full_like(one.action, 0.5)) for one in trajectories]
    for data, reason in (
        (trajectories[:1], "rows are too few"),
        (still, "no frame differs"),
        (constant, "every action is the same"),
        (unrelated(trajectories, np.random.default_rng(0)), "not seen by this check"),
    ):
        words = check_alignment(data).in_words(given=None, remedy="data.alignment=")
        assert words.startswith("undecided") and reason in words
        assert "data.alignment=arrival or data.alignment=departure" in words


def test_rewards_tell_whether_they_are_stored_with_their_action():
    """A departure of actions alone, as DreamerV3's, and one of rewards, too."""
    found = check_alignment(stored([replace(one, reward=one.reward + 1) for one in play(0, POLICIES["smooth"])], -1))
    words = found.in_words(given=None, remedy="data.alignment=")
    assert "rewards as arrival: data.actions=departure" in words and "data.alignment=departure" in words
    words = found.in_words(given=None, remedy="data.alignment=", rewards_depart=True)
    assert words.index("data.alignment=departure") < words.index("data.actions=departure")


def unrelated(trajectories: list[Trajectory], rng: np.random.Generator) -> list[Trajectory]:
    """Actions of other episodes: as smooth, as large, and without meaning."""
    return [
        replace(one, action=trajectories[k].action)
        for one, k in zip(trajectories, np.roll(np.arange(len(trajectories)), rng.integers(1, 20)), strict=True)
    ]


def test_uninformative_actions_are_undecided_for_every_seed():
    for seed in range(20):
        trajectories = play(seed, POLICIES["smooth"])
        for actions in (
            unrelated(trajectories, np.random.default_rng(seed)),
            [replace(one, action=np.full_like(one.action, 0.5)) for one in trajectories],
        ):
            found = check_alignment(actions)
            assert found.verdict == "undecided", (seed, found)


def test_still_frames_and_too_few_rows_are_undecided():
    trajectories = play(0, POLICIES["smooth"], episodes=3)
    still = [replace(one, observation={"pixels": np.zeros_like(one.pixels)}) for one in trajectories]
    for nothing in (
        still,
        trajectories[:1],
        [],
        [replace(one, observation={"pixels": one.pixels[:2]}) for one in trajectories],
    ):
        assert check_alignment(nothing).verdict == "undecided"


def test_only_the_first_episodes_are_read():
    trajectories = play(0, POLICIES["smooth"])

    def endless():
        while True:
            yield from trajectories

    assert check_alignment(endless()).verdict == "arrival"


def test_results_are_json():
    found = Alignment({-1: 0.0, 0: 0.25, 1: -0.001}, 0, 12.345, 700)
    scores = {"departure": 0.0, "arrival": 0.25, "late": -0.001}
    assert found.to_json() == {"verdict": "arrival", "scores": scores, "t": 12.3, "rows": 700}
