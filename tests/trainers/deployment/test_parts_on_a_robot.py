"""A bundle whose agent, or whose robot, is made of parts from outside the tree: `parts=` finds them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules import parts
from tests.rigs.tiny_bundle import tiny_bundle
from trainers import drive
from worldmodel.spec import EnvSpec

PARTS = f"parts={Path(__file__).parents[1] / 'outside'}"
SPEC = EnvSpec("corridor", images={"pixels": (3, 16, 16)}, action_dim=1, action_repeat=1, episode_steps=20)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    folder = tiny_bundle(tmp_path / "b", PARTS, "planner=halving", "~planner.elites", what="planner", spec=SPEC)
    monkeypatch.setenv(parts.VARIABLE, "")
    return folder


def test_a_drive_finds_planner_and_robot(bundle, tmp_path):
    driven = drive.main([str(bundle), PARTS, "env=corridor", "hz=4", f"out={tmp_path / 'out'}"])
    assert driven["task"] == "corridor" and driven["decisions"] == 20 and driven["sources"]["plan"] > 10


def test_a_server_finds_the_planner(bundle):
    command = [sys.executable, "-m", "trainers.serve", bundle, "port=0", PARTS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(process.stdout.readline())["status"] == "ready"
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_without_them_the_part_is_named(bundle):
    # in a process that has found none yet
    command = [sys.executable, "-m", "trainers.serve", str(bundle), "port=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = json.loads(done.stdout)["error"]
    assert done.returncode == 2 and said.startswith("UnknownComponent: planner.name: ")
    assert "got 'halving'" in said and said.endswith("; a part of your own is found where parts= says")
