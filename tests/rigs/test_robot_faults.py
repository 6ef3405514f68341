"""The robot's side among faults of everything else, in a process of its own."""

import pytest

from tests.rigs.results import results

WRONG = ("over_two_periods", "nonfinite", "exceptions", "not_recovered")
PATIENT = """
import json
from tests.rigs import robot_faults
from trainers.deployment import remote_controller
remote_controller.SHARE = 5
print(json.dumps(robot_faults.measure(faults=4, seed=0, hz=10.0)))
"""


@pytest.mark.slow
def test_there_is_an_action_within_two_periods_whatever_fails() -> None:
    found = results("-m", "tests.rigs", "robot_faults", "faults=12", "hz=10")
    assert found["faults"] == 12 and not any(found[key] for key in WRONG), found
    assert found["sources"]["plan"] > 10 and found["sources"]["stopped"] > 0


@pytest.mark.slow
def test_the_rig_notices_a_robot_that_waits() -> None:
    assert results("-c", PATIENT)["over_two_periods"] > 0
