"""The attack on planners: its lies are told, its counts count, and no planner falls for them."""

import math

import pytest
import torch

from tests.rigs import adversarial
from tests.rigs.adversary import ACTION, LIES, Adversary
from trainers.command.configuration import BadConfig
from worldmodel.interfaces import Plan


def test_no_planner_is_fooled_and_every_call_is_counted() -> None:
    found = adversarial.measure([], calls=680, rows=30, seed=0)
    assert found["calls"] == 680 and found["plans"] == 2 * len(found["by_planner"])
    assert {row["planner"] for row in found["by_planner"]} == set(adversarial.BUDGETS)
    assert found["nonfinite"] == found["out_of_bounds"] == found["values"] == 0


def test_what_is_wrong_is_counted_by_call() -> None:
    mean = torch.zeros(6, 3, ACTION)
    mean[0, 2, 1], mean[1, 0, 0], mean[2] = math.nan, math.inf, 1.5
    value = torch.tensor([0.0, 0.0, 0.0, math.nan, math.inf, -math.inf])
    wrong = adversarial._wrong(Plan(action=mean[:, 0], mean=mean, value=value))
    assert wrong == {"nonfinite": 2, "out_of_bounds": 1, "values": 2}


def test_every_lie_is_told_to_its_own_row() -> None:
    model, rows = Adversary(), len(LIES)
    latent = torch.cat([torch.full((rows, 3), 0.3), torch.arange(rows)[:, None].float(), torch.zeros(rows, 3)], 1)
    latent = torch.cat([latent, torch.ones(rows, 1), torch.zeros(rows, 1)], 1)
    rewards = dict(zip(LIES, model.reward(latent), strict=True))
    truth = -torch.tensor(0.27)
    torch.testing.assert_close(rewards["none"], truth)
    assert rewards["nan"].isnan() and rewards["inf"] == math.inf and rewards["-1e38"] == -1e38
    assert rewards["constant"] == 0 and rewards["ties"] == 0 and rewards["times 1e30"] < -1e29
    after = model.step(latent, torch.zeros(rows, ACTION))
    assert torch.equal(after[:, 3:], latent[:, 3:]) and after.isfinite().all()


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(BadConfig, match="calls and rows"):
        adversarial.measure([], calls=0, rows=10, seed=0)
