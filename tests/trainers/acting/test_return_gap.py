"""What a planner that knows the truth predicts comes true, whatever the episode's length."""

from dataclasses import replace

import numpy as np
import pytest

from datamodules.rollout import Episode
from trainers.acting.return_gap import return_gap


def episode(rewards: list[float]) -> Episode:
    return Episode(index=0, seed=0, rewards=rewards, decisions=len(rewards), calls=[*range(len(rewards))])


@pytest.mark.parametrize("decisions", [2, 10, 125])
def test_a_true_prediction_has_no_gap_to_the_end_of_the_episode(decisions: int) -> None:
    value = 0.5 / (1 - 0.99)  # of a reward of 0.5 for ever
    gap = return_gap(
        [np.asarray([value], np.float32)] * decisions, [episode([0.5] * decisions)], discount=0.99, horizon=None
    )
    assert gap["plan/realised_return"] == pytest.approx(gap["plan/predicted_return"], rel=1e-5)


def test_a_prediction_of_twice_the_rewards_shows() -> None:
    predicted = [np.asarray([2.0], np.float32), np.asarray([1.0], np.float32), np.asarray([0.0], np.float32)]
    gap = return_gap(predicted, [episode([0.5, 0.5, 0.0])], discount=1.0, horizon=None)
    assert gap == {"plan/predicted_return": 1.5, "plan/realised_return": 0.75}


def test_an_episode_of_one_decision_says_nothing() -> None:
    assert return_gap([np.zeros(1, np.float32)], [episode([1.0])], discount=0.9, horizon=None) == {}


def test_a_prediction_over_a_horizon_is_compared_with_what_came_in_it() -> None:
    predicted = [np.asarray([value], np.float32) for value in (5.0, np.nan, 7.0, 100.0)]  # nothing was planned at 1
    gap = return_gap(predicted, [episode([1.0, 2.0, 4.0, 8.0])], discount=0.5, horizon=2)
    assert gap == {"plan/predicted_return": 6.0, "plan/realised_return": ((1 + 1) + (4 + 4)) / 2}
    assert return_gap(predicted, [episode([1.0, 2.0, 4.0, 8.0])], discount=0.5, horizon=5) == {}


@pytest.mark.parametrize("horizon", [None, 3])
def test_nothing_follows_a_termination(horizon: int | None) -> None:
    played = replace(episode([1.0, 2.0, 4.0]), terminal=True)
    truth = [np.asarray([value], np.float32) for value in (1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4)]
    gap = return_gap(truth, [played], discount=0.5, horizon=horizon)
    assert gap["plan/realised_return"] == pytest.approx(gap["plan/predicted_return"])
    assert gap["plan/realised_return"] == pytest.approx((3 + 4 + 4) / 3)


def test_the_last_plan_continues_what_came_where_plans_are_rare() -> None:
    predicted = [np.asarray([value], np.float32) for value in (9.0, np.nan, 6.0, np.nan)]
    gap = return_gap(predicted, [episode([1.0, 2.0, 4.0, 8.0])], discount=1.0, horizon=None)
    assert gap == {"plan/predicted_return": 9.0, "plan/realised_return": 1 + 2 + 6.0}


@pytest.mark.parametrize("horizon", [None, 1])
def test_a_prediction_that_is_no_number_is_left_out(horizon: int | None) -> None:
    predicted = [np.asarray([value], np.float32) for value in (3.0, -np.inf, 2.0, -np.inf)]
    gap = return_gap(predicted, [episode([1.0, 2.0, 4.0, 8.0])], discount=1.0, horizon=horizon)
    came = 1 + 2 + 2.0 if horizon is None else (1 + 4) / 2
    assert gap == {"plan/predicted_return": 3.0 if horizon is None else 2.5, "plan/realised_return": came}
