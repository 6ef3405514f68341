"""The attack on planners: its lies are told, its counts count, and no planner falls for them."""

import math

import pytest
import torch

from tests.rigs import adversarial, adversarial_policies
from tests.rigs.adversarial_policies import POLICIES, attack
from tests.rigs.adversary import ACTION, LIES, Adversary
from trainers.command.configuration import BadConfig
from worldmodel.interfaces import Plan
from worldmodel.parts import module_names


def test_no_planner_is_fooled_and_every_call_is_counted() -> None:
    found = adversarial.measure(calls=680, rows=30, seed=0)
    assert found["calls"] == 680 and found["plans"] == 2 * len(found["by_planner"])
    assert {row["planner"] for row in found["by_planner"]} == set(adversarial.BUDGETS)
    assert found["nonfinite"] == found["out_of_bounds"] == found["values"] == 0
    assert found["policy_calls"] == 68 and {row["policy"] for row in found["by_policy"]} == set(POLICIES)


def test_every_kind_of_policy_is_attacked_and_none_is_fooled() -> None:
    kinds = set(module_names("worldmodel.actors")) - {"policy"}  # that is what they have in common
    assert {name.split()[0] for name in POLICIES} == kinds
    for name in POLICIES:
        found = attack(name, 3000, 250, 0)
        assert found["calls"] == 3000 and found["batches"] == 12
        assert found["nonfinite"] == found["out_of_bounds"] == 0, found


def test_a_policy_that_passes_nonsense_on_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gullible:
        def sample(self, latent, *, generator):
            return latent[:, :ACTION]

        def mode(self, latent):
            return torch.zeros_like(latent[:, :ACTION])

    monkeypatch.setitem(adversarial_policies.POLICIES, "gullible", Gullible)
    found = attack("gullible", 500, 500, 0)
    assert found["nonfinite"] > 50 and found["out_of_bounds"] > 50


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
        adversarial.measure(calls=0, rows=10, seed=0)
