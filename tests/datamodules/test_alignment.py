"""The action that moved the point mass is found where it is stored, and nothing is found where nothing is to find."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from datamodules.alignment import Alignment, check_alignment
from datamodules.envs import toy
from datamodules.rollout import SmoothRandom
from datamodules.trajectory import Trajectory

Choose = Callable[[toy.PointEnv, np.random.Generator, SmoothRandom], np.ndarray]
POLICIES: dict[str, Choose] = {
    "smooth": lambda env, rng, noise: noise(np.zeros(1), np.zeros(1, bool), np.ones(1, bool))[0],
    "noisy expert": lambda env, rng, noise: np.clip(
        0.5 * toy.optimal_action(env.state) + rng.normal(0, 0.3, 2), -1, 1
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
    return Trajectory(pixels, np.stack(actions), reward, False, np.ones(len(steps), np.int32))


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
    still = [replace(one, pixels=np.zeros_like(one.pixels)) for one in trajectories]
    for nothing in (still, trajectories[:1], [], [replace(one, pixels=one.pixels[:2]) for one in trajectories]):
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
