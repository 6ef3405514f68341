"""Statistics over runs against closed forms, and against rliable, whose definitions they are."""

import numpy as np
import pytest

from trainers.reporting import aggregates
from trainers.reporting.aggregates import bootstrap, estimate, iqm, mean, performance_profile

SEEDS, TASKS = 5, 6


def by_task(matrix):
    return {f"task{i}": matrix[:, i] for i in range(matrix.shape[1])}


@pytest.fixture
def two():
    """Scores [S T] of two sweeps, with ties in the first row."""
    generator = np.random.default_rng(3)
    first, second = generator.uniform(0, 1000, (SEEDS, TASKS)), generator.uniform(0, 900, (SEEDS, TASKS))
    second[0] = first[0]
    return first.round(1), second.round(1)


def test_of_constant_scores_all_is_known():
    scores = {"a": np.full(4, 7.0), "b": np.full(2, 7.0)}
    assert estimate(scores, iqm) == (7.0, (7.0, 7.0)) and estimate(scores, mean) == (7.0, (7.0, 7.0))
    assert aggregates.probability_of_improvement(scores, scores) == (0.5, (0.5, 0.5))


def test_the_mean_counts_tasks_and_the_iqm_runs():
    scores = {"a": np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), "b": np.array([10.0, 30.0])}
    assert estimate(scores, mean)[0] == 10.0  # of 0 and 20
    assert estimate(scores, iqm)[0] == 0.0  # two of eight are cut on each side
    assert estimate({"a": np.arange(8.0)}, iqm)[0] == np.arange(2, 6).mean()


def test_one_seed_of_every_task_has_no_interval():
    assert estimate({"a": np.array([3.0]), "b": np.array([5.0])}, mean) == (4.0, None)
    assert estimate({"a": np.array([3.0]), "b": np.array([5.0, 7.0])}, mean)[1] is not None


def test_nothing_is_resampled_over_tasks():
    """Between tasks the scores differ by 1000, within one by 1: only the latter may be in the interval."""
    scores = {"a": np.array([0.0, 1.0, 2.0, 1.0]), "b": np.array([1000.0, 1001.0, 1002.0, 1001.0])}
    value, (low, high) = estimate(scores, mean)
    assert value == 501.0 and 500.0 <= low < 501.0 < high <= 502.0


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(0, 1, 400)
    _, (low, high) = estimate({"a": values}, mean, resamples=20_000)
    half = 1.96 * values.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.05 * half)


def test_the_profile_falls_from_one_to_none():
    shares, low, high = bootstrap(by_task(np.array([[1.0, 3.0], [2.0, 4.0]])), performance_profile(np.arange(6.0)))
    assert shares.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert (low <= shares).all() and (shares <= high).all()


def test_improvement_is_the_share_of_pairs():
    scores, others = (
        {"a": np.array([1.0, 5.0]), "b": np.array([2.0])},
        {"a": np.array([3.0, 5.0]), "b": np.array([1.0])},
    )
    assert aggregates.probability_of_improvement(scores, others)[0] == ((0 + 0 + 1 + 0.5) / 4 + 1) / 2
    assert aggregates.probability_of_improvement(scores, {"b": np.array([1.0]), "c": np.array([9.0])})[0] == 1.0
    with pytest.raises(ValueError, match="expected a task of"):
        aggregates.probability_of_improvement(scores, {"c": np.array([1.0])})


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="expected a score of every task"):
        estimate({"a": np.array([1.0]), "b": np.array([])}, mean)


def test_the_figures_are_those_that_rliable_gave(two):
    """rliable 1.2.0 on the same scores, its intervals with 5000 resamples of its own random numbers."""
    first, second = map(by_task, two)
    value, interval = estimate(first, iqm)
    assert value == pytest.approx(482.325)
    np.testing.assert_allclose(interval, (367.377, 578.502), atol=8.0)
    value, interval = estimate(first, mean)
    assert value == pytest.approx(476.9133333)
    np.testing.assert_allclose(interval, (389.393, 556.848), atol=8.0)
    value, interval = aggregates.probability_of_improvement(first, second)
    assert value == pytest.approx(0.52)
    np.testing.assert_allclose(interval, (0.37667, 0.65333), atol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_rliable_says_the_same(two):
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    first, second = two
    random = np.random.RandomState(1)
    both = lambda x: np.array([metrics.aggregate_iqm(x), metrics.aggregate_mean(x)])  # noqa: E731
    values, intervals = library.get_interval_estimates({"": first}, both, reps=16000, random_state=random)
    for i, statistic in enumerate((iqm, mean)):
        value, interval = estimate(by_task(first), statistic, resamples=50000)
        assert value == pytest.approx(values[""][i])
        np.testing.assert_allclose(interval, intervals[""][:, i], atol=8.0)
    improved = metrics.probability_of_improvement
    values, intervals = library.get_interval_estimates({"": (first, second)}, improved, reps=2000, random_state=random)
    value, interval = aggregates.probability_of_improvement(by_task(first), by_task(second))
    assert value == pytest.approx(float(values[""]))
    np.testing.assert_allclose(interval, intervals[""][:, 0], atol=0.02)
    thresholds = np.linspace(0, 1000, 11)
    shares, intervals = library.create_performance_profile({"": first}, thresholds, reps=2000)
    value, low, high = bootstrap(by_task(first), performance_profile(thresholds))
    np.testing.assert_allclose(value, shares[""])
    np.testing.assert_allclose([low, high], intervals[""], atol=0.07)
