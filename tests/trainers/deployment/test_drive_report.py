"""What a chart of many decisions keeps of them."""

import numpy as np

from trainers.deployment.drive_report import POINTS, largest


def test_one_late_decision_of_many_is_drawn():
    latency = np.full(10 * POINTS + 3, 5.0)
    latency[7654] = 80.0
    x, y = largest(np.arange(len(latency), dtype=float), latency)
    assert len(x) == len(y) <= POINTS and y.max() == 80.0 and x[y.argmax()] <= 7654 < x[y.argmax()] + 11


def test_few_decisions_are_all_drawn_and_what_is_not_known_is_no_number():
    values = np.array([1.0, np.nan, 3.0])
    x, y = largest(np.arange(3.0), values)
    np.testing.assert_array_equal(x, np.arange(3.0))
    np.testing.assert_array_equal(y, values)
    many = np.where(np.arange(2 * POINTS) % 2, np.nan, 2.0)
    assert (largest(np.arange(2.0 * POINTS), many)[1] == 2.0).all()
    assert largest(np.empty(0), np.empty(0))[1].size == 0
