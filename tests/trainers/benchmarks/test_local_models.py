"""What the benchmark of local models measures."""

from trainers.benchmarks.local_models.guided_search import search
from trainers.benchmarks.local_models.samples import errors_by_samples


def test_a_prior_helps_where_samples_are_few_and_samples_where_it_is_wrong() -> None:
    errors = errors_by_samples([3, 6, 24], strength=5.0)
    wrong, squares, both = errors.values()
    assert all(one < other for one, other in zip(both, wrong, strict=True))
    assert both[0] < 0.5 * squares[0] and both[2] < 0.6 * both[0]


def test_controllers_teach_a_network() -> None:
    found = search(iterations=2, hidden=16)
    assert len(found["curve"]) == 2 and found["controllers"] > 10 and found["network"] > 10
