"""A run that an earlier version wrote: it is evaluated, and goes on where it stopped."""

import json
import zipfile
from pathlib import Path

import pytest

from trainers import evaluate, fit
from trainers.run_folder.checkpoint import load_checkpoint, newest
from trainers.run_folder.conversion import convert_checkpoint

# `fit experiment=smoke` of commit dbaaab1 with networks of width 8: 60 env_steps, 6 updates
ARCHIVE = Path(__file__).with_name("run_of_dbaaab1.zip")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    zipfile.ZipFile(ARCHIVE).extractall(tmp_path / "run")
    return tmp_path / "run"


def test_it_is_evaluated_with_the_returns_that_it_had(run: Path) -> None:
    before = json.loads((run / "results.json").read_bytes())["returns"]
    evaluated = evaluate.main([f"checkpoint={run}", "episodes=2", "device=cpu"])
    assert evaluated["returns"] == pytest.approx(before, abs=1e-4)


def test_it_goes_on_where_it_stopped(run: Path) -> None:
    results = fit.main([f"resume={run}", "task.env_steps=80"])
    assert (results["status"], results["env_steps"], results["updates"]) == ("finished", 80, 8)


def test_names_of_this_version_stay(run: Path) -> None:
    checkpoint = load_checkpoint(newest(run / "checkpoints"))
    weights = checkpoint["state_dict"]
    assert "agent.norm.parts.0.mean" in weights and not [name for name in weights if name.startswith("agent.pixels")]
    assert convert_checkpoint(checkpoint, path="x") == checkpoint
