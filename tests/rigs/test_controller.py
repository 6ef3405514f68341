import pytest

from tests.rigs import controller


def test_nothing_that_lies_around_a_controller_gets_through():
    found = controller.attack(9000, seed=1)
    wrong = {key: found[key] for key in ("exceptions", "shape", "nonfinite", "out_of_bounds", "too_fast")}
    assert found["calls"] == 9000 and not any(wrong.values()), wrong
    assert min(found["sources"][source] for source in ("plan", "shifted_plan", "policy", "safe", "stopped")) > 5


def test_the_rig_notices_what_is_wrong(monkeypatch):
    """An action gate that does nothing is found out."""
    import numpy as np

    from trainers.deployment.action_gate import ActionGate

    def admit(self, chosen):
        return chosen, chosen, False

    monkeypatch.setattr(ActionGate, "admit", admit)
    found = controller.attack(3000, seed=1)
    assert found["nonfinite"] > 0 and found["out_of_bounds"] > 0 and np.isfinite(found["attack_s"])


def test_damaged_bundles_are_refused(tmp_path):
    assert controller.flip(tmp_path, 100, seed=0) == {"flips": 100, "flips_accepted": 0}


@pytest.mark.slow
def test_a_slow_model_is_not_waited_for(tmp_path):
    found = controller.slow(tmp_path, 20, seed=0, hz=20.0)
    assert found["slow_missing"] == 0 and found["slow_calls"] == 20
