import numpy as np
import pytest
from scipy import stats

from trainers.run_folder.statistics import evaluation_metrics, iqm, mean_ci95


@pytest.mark.parametrize("episodes", [4, 10, 30])
def test_the_interval_covers_the_mean_as_often_as_it_says(episodes):
    rng, runs = np.random.default_rng(episodes), 4000
    samples = rng.normal(500, 30, size=(runs, episodes))
    inside = [low <= 500 <= high for low, high in map(mean_ci95, samples)]
    assert 0.93 < np.mean(inside) < 0.97


def test_the_interval_is_students():
    returns = np.random.default_rng(1).exponential(100, size=7)
    np.testing.assert_allclose(mean_ci95(returns), stats.ttest_1samp(returns, 0).confidence_interval(0.95), rtol=1e-9)


def test_below_four_episodes_there_is_no_interval():
    assert mean_ci95([1.0, 2.0, 3.0]) is None
    assert evaluation_metrics([1.0, 3.0]) == {"eval/return_mean": 2.0, "eval/episodes": 2}
    assert mean_ci95([7.0] * 4) == (7.0, 7.0)
    assert evaluation_metrics([7.0] * 4)["eval/return_ci95_low"] == 7.0


def test_iqm_is_the_mean_of_the_middle():
    assert iqm([0, 1, 2, 3, 4, 6, 7, 1000]) == 3.75
    assert iqm([4.0]) == 4.0
    assert iqm([3, 1, 2]) == 2.0


@pytest.mark.parametrize("statistic", [mean_ci95, iqm, evaluation_metrics])
def test_no_returns_are_refused(statistic):
    with pytest.raises(ValueError, match="at least one"):
        statistic([])
