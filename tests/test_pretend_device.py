"""What a GPU would be asked for, on a device that is pretended: nothing mixed, no waits, kernels within a table."""

import json
import subprocess
import sys

import pytest

from tests.conftest import DYNAMICS, OBJECTIVES

# the host waits for a decision's action alone, and for nothing in an update
ACTION = [["trainers/acting/agent_policy.py", "copy to the host", 1]]
# 5% above what was counted: launches are most of an update's time on a GPU
MOST_KERNELS = {"update": 2190, "decision": 1190}
SMALL = ("experiment=small", "data.batch=2", "data.length=6")


def count(*overrides):
    command = [sys.executable, "-m", "tests.rigs.launches", *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    for part in ("update", "decision"):
        seen[part]["waits"] = [[place.partition(":")[0], reason, n] for place, reason, n in seen[part]["waits"]]
    return seen


def test_the_default_neither_mixes_devices_nor_waits():
    seen = count()
    assert seen["update"]["waits"] == [] and seen["decision"]["waits"] == ACTION
    assert seen["update"]["arrivals"] == []  # a recorded update would find the numbers of the recording
    assert all(seen[part]["kernels"] <= most for part, most in MOST_KERNELS.items()), seen
    assert seen["without_gradient"] == []  # DDP would wait for them for ever


@pytest.mark.slow
@pytest.mark.parametrize("planner", ["icem", "mppi", "planet", "seeded", "random", "cem_gradient", "gumbel", "uct"])
def test_planners_wait_for_nothing_but_the_action(planner):
    assert count(*SMALL, f"planner={planner}", "policy=none")["decision"]["waits"] == ACTION


@pytest.mark.slow
@pytest.mark.parametrize("choice", [*(f"dynamics={n}" for n in DYNAMICS), *(f"objective={n}" for n in OBJECTIVES)])
def test_models_neither_mix_devices_nor_wait(choice):
    """Those that read several frames leave out rows that lack them, by a mask, whose length the host must know."""
    seen = count(*SMALL, choice)
    masks = [wait for wait in seen["update"]["waits"] if wait[1] == "index by a mask"]
    assert seen["update"]["waits"] == masks and sum(n for *_, n in masks) <= 4
    assert seen["update"]["arrivals"] == []
    assert seen["without_gradient"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_hot", "laplace"])
def test_heads_neither_mix_devices_nor_wait(name):
    seen = count(*SMALL, f"agent.heads.name={name}")
    assert seen["update"]["waits"] == seen["update"]["arrivals"] == [] and seen["without_gradient"] == []
