"""Labels belong to the rows that were seen, whoever acts, and are the same for an episode that is played again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules import parts
from datamodules.envs.pool import EnvPool
from datamodules.trajectory import Trajectory
from tests.conftest import small_agent
from tests.rigs import PARTS
from trainers.distillation.query import SharedPolicy, played, replayed
from worldmodel.agents.planner_teacher import PlannerTeacher
from worldmodel.distillation.planner_gaussian import PlannerTarget
from worldmodel.interfaces import Carry, Decision

STEPS = 6


class Counts(PlannerTeacher):
    """Labels what is seen with the time and the seed that the frame shows, and remembers the actions it was told."""

    def __init__(self) -> None:
        self.told = []

    def initial_carry(self, batch: int) -> Carry:
        return Carry(torch.zeros(batch, 1), torch.zeros(batch, 2), torch.zeros(batch, 0, 2), torch.ones(batch).long())

    def label(self, observation, is_first, carry, *, generator=None):
        self.told.append(carry.action.clone())
        shown = observation["pixels"][:, ::2, -1, -1].float() / 256
        return PlannerTarget(shown, torch.full_like(shown, 0.3)), carry


class Steady:
    """Always does -1."""

    def initial_carry(self, batch: int) -> Carry:
        return Counts().initial_carry(batch)

    def act(self, observation, is_first, carry, *, exploration=None, generator=None) -> Decision:
        action = -torch.ones(len(is_first), 2)
        return Decision(action, replace(carry, action=action), torch.full((len(action),), torch.nan))


@pytest.fixture(scope="module")
def pool():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(parts.VARIABLE, str(PARTS))
        with EnvPool(source="counting", kwargs={"size": 16, "episode_steps": STEPS}, count=2) as pool:
            yield pool


def play(pool, teacher, student=None, *, teacher_share=1.0, env_steps=4 * STEPS, envs=2):
    options = {"teacher_share": teacher_share, "env_steps": env_steps, "envs": envs, "seed": 0, "first": 0}
    return [labelled for labelled, _ in played(pool, teacher, student, **options, on_turn=lambda: None)]


def assert_labels_are_of_their_rows(episodes):
    for episode in episodes:
        shown = episode.observation["pixels"][:, ::2, -1, -1] / 256
        np.testing.assert_allclose(episode.mean[:-1], shown[:-1], atol=1e-6)
        assert np.isnan(episode.mean[-1]).all() and episode.decisions == STEPS


@pytest.mark.parametrize(("share", "done"), [(1.0, {0}), (0.0, {-1}), (0.5, {0, -1})])
def test_labels_are_the_teacher_s_whoever_acts(pool, share, done):
    episodes = play(pool, Counts(), Steady(), teacher_share=share)
    assert len(episodes) == 4
    assert_labels_are_of_their_rows(episodes)
    decided = [np.where(e.action[1:, 0] == -1, -1, 0) for e in episodes]
    assert set(np.concatenate(decided).tolist()) == done
    for episode, by in zip(episodes, decided, strict=True):  # the teacher's own are its labels
        np.testing.assert_allclose(episode.action[1:][by == 0], episode.mean[:-1][by == 0])


def test_the_teacher_is_told_what_was_done(pool):
    teacher = Counts()
    play(pool, teacher, Steady(), teacher_share=0.0, env_steps=STEPS, envs=1)
    assert not teacher.told[0].any() and all((told == -1).all() for told in teacher.told[1:])


def test_as_many_control_steps_are_played_as_asked_for(pool):
    assert len(play(pool, Counts(), env_steps=1)) == 1
    assert len(play(pool, Counts(), env_steps=2 * STEPS + 1)) == 3


def test_who_decides_depends_on_a_row_s_own_seed_alone():
    seen = {"pixels": np.zeros((3, 3, 16, 16), np.uint8)}
    first, ready = np.ones(3, np.bool_), np.ones(3, np.bool_)

    def decided(seeds, ready):
        policy = SharedPolicy(Counts(), Steady(), teacher_share=0.5, seeds=seeds)
        return np.stack([policy(seen, first, ready)[:, 0] for _ in range(20)])

    alone = decided([4, 5, 6], ready)
    np.testing.assert_array_equal(alone[:, 1], decided([7, 5, 8], np.array([False, True, True]))[:, 1])


def test_a_replayed_episode_gets_the_labels_of_its_rows(pool):
    episodes = play(pool, Counts(), Steady(), teacher_share=0.3)
    recorded = [_trajectory(e) for e in episodes]
    teacher = Counts()
    again = replayed(recorded, teacher, seed=0, first=0, on_turn=lambda: None)
    for mine, theirs in zip(episodes, again, strict=True):
        np.testing.assert_allclose(mine.mean[:-1], theirs.mean[:-1])
        np.testing.assert_array_equal(mine.action, theirs.action)
    for t, told in enumerate(teacher.told):
        np.testing.assert_array_equal(told.numpy(), np.stack([e.action[t] for e in episodes]))


def test_a_planner_says_the_same_of_an_episode_played_and_replayed(pool):
    """Filtered and planned from the same plans with the same noise, though the student acted."""
    teacher = PlannerTeacher(small_agent().eval())
    (episode,) = play(pool, teacher, Steady(), teacher_share=0.5, env_steps=STEPS, envs=1)
    import trainers.distillation.query as query

    real, use = query.episode_seed, 1
    query.episode_seed = lambda seed, rank, _, number: real(seed, rank, use, number)
    try:
        (again,) = replayed([_trajectory(episode)], teacher, seed=0, first=0, on_turn=lambda: None)
    finally:
        query.episode_seed = real
    np.testing.assert_allclose(again.mean[:-1], episode.mean[:-1], atol=1e-6)
    np.testing.assert_allclose(again.std[:-1], episode.std[:-1], atol=1e-6)
    assert episode.std[:-1].min() >= 0.1 - 1e-7


def _trajectory(episode) -> Trajectory:
    zeros = np.zeros(len(episode))
    return Trajectory(episode.observation, episode.action, zeros.astype(np.float32), False, zeros.astype(np.int32))
