import time

import numpy as np
import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.deployment.controller import Controller
from trainers.deployment.lateness import WINDOW, Lateness


def test_the_latest_answer_beyond_what_is_allowed_is_kept_back():
    lateness = Lateness(budget_s=0.035, allowed_s=0.0075)
    assert lateness.reserve_s == 0
    for late_s in (-0.01, 0.004, 0.0075):
        lateness.add(late_s)
    assert lateness.reserve_s == 0
    for late_s in (0.0125, 0.0095, -0.02):
        lateness.add(late_s)
    assert lateness.reserve_s == pytest.approx(0.005)


def test_half_a_budget_is_the_most_and_what_it_could_not_absorb_does_not_count():
    lateness = Lateness(budget_s=0.04, allowed_s=0.01)
    lateness.add(0.0299)
    assert lateness.reserve_s == pytest.approx(0.0199)
    lateness = Lateness(budget_s=0.04, allowed_s=0.01)
    lateness.add(0.2)
    assert lateness.reserve_s == 0


def test_a_load_that_is_gone_is_forgotten():
    lateness = Lateness(budget_s=0.04, allowed_s=0.0)
    lateness.add(0.01)
    for _ in range(WINDOW - 1):
        lateness.add(-0.01)
    assert lateness.reserve_s == pytest.approx(0.01)
    lateness.add(-0.01)
    assert lateness.reserve_s == 0


def test_a_controller_whose_planner_answers_late_asks_it_earlier(tmp_path):
    class LatePlanner:
        def __init__(self):
            self.until = []

        def ask(self, request, *, until):
            self.until.append(until)
            time.sleep(max(0.0, until - time.monotonic()) + 0.04)

        def close(self):
            """Nothing was started."""

    planner = LatePlanner()
    controller = Controller(tiny_bundle(tmp_path / "bundle"), planner=planner, hz=5)
    assert controller.budget_s == pytest.approx(0.14)  # of a period of 200 ms: 30 ms late are allowed
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    starts = []
    for frame in frames:
        starts.append(time.monotonic())
        controller.step(frame)
    assert min((np.array(planner.until) - starts)[1:]) == pytest.approx(0.13, abs=0.005)
