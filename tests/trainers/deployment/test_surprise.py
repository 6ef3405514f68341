import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.bundle.recorded_rows import Row
from trainers.deployment import surprise
from trainers.deployment.controller import Controller
from trainers.deployment.surprise import Surprise, calibrated_limit


def test_the_mean_of_five_is_held_against_the_limit():
    alarm = Surprise(1.0)
    said = [alarm.alarms(error) for error in (np.nan, 2, 2, 2, 2, 2, np.nan, 0, 0, 0, 0)]
    assert said == [False] * 5 + [True, True, True, True, False, False]  # 10, 10, 8, 6, 4, 2 over five
    alarm.reset()
    assert not alarm.alarms(9.0)
    assert not any(Surprise(None).alarms(9.0) for _ in range(9))


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return read_bundle(tiny_bundle(tmp_path_factory.mktemp("b") / "b")).build()


def still(rows):
    """Episodes of ten rows in which everything stands still."""
    frame = torch.randint(256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    return [Row({"pixels": frame}, torch.zeros(1, 2), torch.tensor([t % 10 == 0])) for t in range(rows)]


def test_calibration_counts_false_alarms_on_other_episodes(agent):
    limit, rate = calibrated_limit(agent, still(60))
    assert limit > 0 and rate == 0  # all episodes are the same
    assert calibrated_limit(agent, still(10)) is None


def test_every_other_episode_sets_the_limit_and_the_rest_is_held_against_it(agent, monkeypatch):
    nan, errors = float("nan"), [[float("nan"), *[1.0] * 9], [float("nan"), *[1.0] * 6, *[2.0] * 8]]
    monkeypatch.setattr(surprise, "_errors", lambda agent, rows: errors)
    limit, rate = calibrated_limit(agent, [])
    assert limit == pytest.approx(1.0) and rate == pytest.approx(8 / 10)  # of ten means two are of ones alone
    errors[:] = [[nan, 1.0]] * 4
    assert calibrated_limit(agent, []) is None


def test_a_controller_raises_it_and_counts_it(agent, tmp_path):
    controller = Controller(tiny_bundle(tmp_path / "b", what="policy", limits={"prediction_error": 1e-6}))
    rng = np.random.default_rng(0)
    statuses = [controller.step(rng.integers(0, 256, (16, 16, 3), np.uint8))[1] for _ in range(10)]
    assert [s.alarm for s in statuses] == [False] * 5 + [True] * 5
    assert controller.telemetry.summary()["alarms"] == 5
