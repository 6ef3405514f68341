"""The attack on the controller, in a process of its own: here types are checked at every call, and lies have none."""

import pytest

from tests.rigs import controller
from tests.rigs.results import results

WRONG = ("exceptions", "shape", "nonfinite", "out_of_bounds", "too_fast")
NO_GATE = """
import json
from tests.rigs import controller
from trainers.deployment.action_gate import ActionGate
ActionGate.admit = lambda self, chosen: (chosen, chosen, False)
print(json.dumps(controller.attack(3000, seed=1)))
"""


def test_nothing_that_lies_around_a_controller_gets_through() -> None:
    found = results("-m", "tests.rigs", "controller", "calls=9000", "slow_calls=0", "kills=0", "flips=100", "seed=1")
    assert found["calls"] == 9000 and not any(found[key] for key in WRONG), found
    assert min(found["sources"][source] for source in ("plan", "shifted_plan", "policy", "safe", "stopped")) > 5
    assert found["flips"] == 100 and found["flips_accepted"] == 0


def test_the_rig_notices_what_is_wrong() -> None:
    """An action gate that does nothing is found out."""
    found = results("-c", NO_GATE)
    assert found["nonfinite"] > 0 and found["out_of_bounds"] > 0


@pytest.mark.slow
def test_a_slow_model_is_not_waited_for(tmp_path) -> None:
    found = controller.slow(tmp_path, 20, seed=0, hz=20.0, busy=2, first=False)
    assert found["slow_missing"] == 0 and found["slow_calls"] == 20
