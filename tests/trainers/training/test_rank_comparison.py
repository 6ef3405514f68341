"""Speed-ups that can be said beforehand; the trial itself is made by the two ranks of test_ddp."""

import pytest
import torch

from tests.conftest import random_batch
from trainers.training.rank_comparison import RankTimes


@pytest.mark.parametrize(
    ("alone_s", "share_s", "reduce_s", "acting_s", "speedup"),
    [
        (4.0, 1.0, 0.0, 0.0, 4.0),  # all computed in parallel
        (1.0, 1.0, 0.0, 0.0, 1.0),  # launches take the time, whatever the batch
        (1.0, 1.0, 1.0, 0.0, 0.5),  # and gradients as much again
        (1.0, 1.0, 0.0, 1e6, 4.0),  # environments are all that takes time
        (1.0, 1.0, 1.0, 1.0, 5 / 3),
    ],
)
def test_a_speed_up_of_four_ranks(alone_s, share_s, reduce_s, acting_s, speedup):
    times = RankTimes(4, alone_s, share_s, reduce_s, acting_s)
    assert times.speedup == pytest.approx(speedup, rel=1e-5)
    assert (times.warning() is None) == (speedup > 1)


def test_the_warning_says_what_to_do_instead():
    line = RankTimes(2, alone_s=0.02, share_s=0.015, reduce_s=0.025, acting_s=0.0).warning()
    assert line.startswith("warning: 2 ranks are 0.50 times as fast as one: an update takes 40 ms, 25 of them")
    assert "trainer.devices=1" in line and "trainers.sweep" in line


def test_the_batch_of_one_rank_has_the_windows_of_all():
    batch = random_batch(B=3, T=5)
    whole = batch.repeated(2)
    assert torch.equal(whole.pixels, torch.cat([batch.pixels, batch.pixels]))
    assert torch.equal(whole.reward[3:], batch.reward) and whole.is_first.shape == (6, 5)
