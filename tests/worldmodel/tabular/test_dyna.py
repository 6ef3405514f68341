"""Dyna-Q, Dyna-Q+ and prioritised sweeping: their fixed point, and what planning saves."""

import numpy as np
import pytest

from worldmodel.errors import BadValue
from worldmodel.tabular.dyna_q import DynaQ
from worldmodel.tabular.dyna_q_plus import DynaQPlus
from worldmodel.tabular.episodes import cumulative_reward, episode_lengths, play, steps_to_shortest
from worldmodel.tabular.maze import BOTH_GAPS, DYNA_MAZE, LEFT_GAP, Maze, Transition, path_length
from worldmodel.tabular.model import true_model, value_iteration
from worldmodel.tabular.prioritised_sweeping import PrioritisedSweeping

MAZE, SEEDS = Maze(DYNA_MAZE), range(2)
SIZES = {"states": MAZE.states, "actions": MAZE.actions}
EAGER = {**SIZES, "step_size": 0.5, "initial": 1.0}  # tries everything, so that all methods end at the same values


@pytest.mark.parametrize("kind", [DynaQ, PrioritisedSweeping])
def test_the_fixed_point_is_that_of_value_iteration(kind: type[DynaQ]) -> None:
    learner = kind(**SIZES, step_size=1.0, planning=40_000, **({} if kind is DynaQ else {"threshold": 1e-6}))
    steps = [MAZE.step(state, action) for state in MAZE.free() for action in range(MAZE.actions)]
    learner.planning, planned = 0, learner.planning
    for step in steps:
        learner.learn(step)
    learner.planning = planned
    learner.plan()
    exact = value_iteration(true_model(MAZE), discount=learner.discount)
    np.testing.assert_allclose(learner.values, exact, atol=1e-3)


def test_the_exploration_bonus_vanishes_with_kappa() -> None:
    plain, plus = DynaQ(**SIZES, seed=3), DynaQPlus(**SIZES, seed=3, kappa=0.0, planning=0)
    plain.planning = 0
    for _, step, other in zip(range(500), play(MAZE, plain), play(MAZE, plus), strict=False):
        assert step == other
    assert np.array_equal(plain.values, plus.values)


def test_the_bonus_is_kappa_root_tau() -> None:
    learner = DynaQPlus(states=2, actions=1, planning=1, step_size=1.0, kappa=0.1, discount=0.0)
    learner.learn(Transition(0, 0, 2.0, 1, 1.0))
    assert learner.values[0, 0] == 2.0  # τ = 0: just tried
    learner.steps = 10  # as if nine steps had been made elsewhere
    learner.plan()
    assert learner.values[0, 0] == pytest.approx(2.0 + 0.1 * 3.0)


def test_planning_needs_at_most_a_fifth_of_the_real_steps() -> None:
    needed = {}
    for planning in (0, 50):
        learners = [DynaQ(**{**EAGER, "step_size": 1.0}, planning=planning, seed=seed) for seed in SEEDS]
        needed[planning] = [steps_to_shortest(MAZE, learner, most=20_000) for learner in learners]
        assert max(needed[planning]) < 20_000
    assert np.mean(needed[50]) <= np.mean(needed[0]) / 5, needed


def test_planning_shortens_the_first_episodes() -> None:
    lengths = {
        k: [episode_lengths(MAZE, DynaQ(**SIZES, planning=k, seed=s), episodes=4)[3] for s in SEEDS] for k in (0, 50)
    }
    assert np.mean(lengths[50]) < 40 < 100 < np.mean(lengths[0]), lengths


def test_the_first_way_found_is_kept_where_values_begin_at_0() -> None:
    """Why `initial` exists: ε-greedy steps alone seldom leave a way that is nearly shortest."""
    learner = DynaQ(**SIZES, planning=50, seed=0)
    assert steps_to_shortest(MAZE, learner, most=1000) == 1000
    assert path_length(MAZE, learner.values) == 16


def test_dyna_q_plus_finds_the_shortcut_that_dyna_q_misses() -> None:
    before, after = Maze(LEFT_GAP), Maze(BOTH_GAPS)
    sizes = {"states": before.states, "actions": 4, "planning": 10, "step_size": 0.5}
    plain, plus = DynaQ(**sizes), DynaQPlus(**sizes)
    rewards = [cumulative_reward(before, learner, steps=4000, changes={1500: after}) for learner in (plain, plus)]
    assert [path_length(after, learner.values) for learner in (plain, plus)] == [16, 10]
    since = [float(reward[-1] - reward[1499]) for reward in rewards]
    assert since[1] > 1.2 * since[0], since


def test_prioritised_sweeping_needs_fewer_backups() -> None:
    backups = {}
    for kind in (DynaQ, PrioritisedSweeping):
        learner = kind(**{**EAGER, "step_size": 1.0}, planning=50, seed=0)
        assert steps_to_shortest(MAZE, learner, most=5000) < 500
        backups[kind] = learner.backups
    assert 8 * backups[PrioritisedSweeping] < backups[DynaQ], backups


def test_one_real_step_is_swept_back_along_the_whole_way() -> None:
    learner = PrioritisedSweeping(states=6, actions=1, step_size=1.0, planning=10, discount=0.5)
    for state in range(5):
        learner.learn(Transition(state, 0, float(state == 4), state + 1, float(state != 4)))
    np.testing.assert_allclose(learner.values[:5, 0], 0.5 ** np.arange(4, -1, -1))
    assert learner.backups == 5  # each once, from the goal back


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (DynaQ, {"planning": -1}),
        (DynaQ, {"step_size": 0.0}),
        (DynaQPlus, {"kappa": -1.0}),
        (DynaQ, {"model_rate": 2.0}),
    ],
)
def test_options_out_of_range(kind: type[DynaQ], option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option)).removeprefix("model_")):
        kind(**SIZES, **option)


def test_prioritised_sweeping_needs_a_backup_to_learn_at_all() -> None:
    with pytest.raises(BadValue, match="planning: expected a whole number of at least 1, got 0"):
        PrioritisedSweeping(**SIZES, planning=0)
