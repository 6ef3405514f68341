"""The table over policies: the noise of gradients in closed form, and a row from a run that was really made."""

import math
import shutil

import pytest
import torch

from trainers.benchmarks.policies import gradient_noise, measure
from trainers.command.arguments import BadArguments


def test_gradient_noise_is_covariance_over_squared_mean():
    rows = 0.5 + 2.0 * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    assert gradient_noise(rows) == pytest.approx(3 * 4.0 / (3 * 0.25), rel=0.03)
    assert gradient_noise(torch.ones(5, 7)) == 0.0


def test_few_rows_count_their_noise_once():
    """Their squared mean has an eighth of the noise too much, which is taken off."""
    rows = 1.0 + torch.randn(20_000, 8, 4, generator=torch.Generator().manual_seed(1))
    noise = rows.double().var(1).sum(-1)
    signal = [float(noise[k]) / gradient_noise(rows[k]) for k in range(2_000) if gradient_noise(rows[k]) < math.inf]
    assert sum(signal) / len(signal) == pytest.approx(4.0, rel=0.03)


def test_no_direction_at_all():
    assert gradient_noise(torch.tensor([[1.0], [-1.0]])) == math.inf


def test_a_row_of_a_finished_run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "one")
    (row,) = measure(runs=str(tmp_path), batches=3, seed=0)["rows"]
    assert (row["policy"], row["seeds"], row["env_steps"]) == ("backprop", 1, 120)
    assert row["return_low"] == row["return_mean"] == row["return_high"] and row["gradient_noise"] > 0
    assert measure(runs=str(tmp_path), batches=3, seed=0)["rows"] == [row]


def test_nothing_to_measure(tmp_path):
    with pytest.raises(BadArguments, match="folder of finished runs"):
        measure(runs=str(tmp_path), batches=8, seed=0)
