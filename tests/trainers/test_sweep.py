"""A real sweep: a task that is learned and one that cannot be played, interrupted, continued, and its page."""

import json
import os
import signal
from pathlib import Path

import pytest

from trainers.command.configuration import BadConfig
from trainers.reporting.run_set import read_runs
from trainers.sweeping.record import locked
from trainers.sweeping.start import sweep

UNPLUGGED = """
import gymnasium

class Unplugged(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 3), "uint8")
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        raise RuntimeError("the camera is unplugged")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "unplugged.py").write_text(UNPLUGGED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])]))
    return tmp_path


def states(root):
    return {run["name"]: run["state"] for run in json.loads((root / "sweep.json").read_bytes())["runs"]}


def test_a_sweep_is_stopped_in_order_and_continued_to_its_end(place, runs, toy, gone):
    root = place / "results" / "x"
    task = "task=toy_point,gym:unplugged:Unplugged"
    first = runs.cli("trainers.sweep", *toy, task, "jobs=2", "task.env_steps=400", f"out={root}")
    learned = root / "toy_point-seed=0"
    first.wait_for_rows(learned, 2)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait() == 128 + signal.SIGTERM, first.err.read_text()
    assert first.results()["status"] == "interrupted" and gone(first.pid)
    before = states(root)
    assert before["toy_point-seed=0"] == "interrupted" and set(before.values()) <= {"interrupted", "failed", "waiting"}
    assert (learned / "checkpoints").is_dir()

    again = runs.cli("trainers.sweep", f"out={root}")
    assert again.wait() == 1, again.err.read_text()
    results = again.results()
    assert (results["runs"], results["finished"], results["failed"]) == (2, 1, 1)
    assert {one["error"] for one in results["failures"]} == {"EnvError: RuntimeError: the camera is unplugged"}
    final = json.loads((learned / "results.json").read_bytes())["return_mean"]
    assert results["return_mean"] == results["iqm"] == final and results["iqm_ci95"] is None
    assert results["out"] == str(root)
    assert "the camera is unplugged" in Path(results["report"]).read_text()
    assert (learned / "config_0.yaml").exists()  # it was resumed, not begun again

    with pytest.raises(BadConfig, match=r"data.batch: expected 4 as in the run in .*; name another out="):
        sweep([*toy, task, "seed=0", "task.env_steps=400", "data.batch=2"], out=str(root), jobs=None)
    with pytest.raises(BadConfig, match="task: expected the tasks of the runs to add"):
        sweep(["seed=7"], out=str(root), jobs=None)
    with pytest.raises(BadConfig, match="out: expected a folder for many runs, got the run"):
        sweep([*toy], out=str(learned), jobs=None)
    assert states(root) == {run.name: run.state for run in read_runs(root).runs}


def test_what_cannot_start_leaves_nothing_behind(tmp_path, refused):
    from trainers.sweep import main

    for words, message in (
        (["task=toy_point,nowhere"], "no task 'nowhere'"),
        ([], "there is no sweep in"),
        (["task=toy_point", "jobs=0"], "jobs: expected a whole number"),
        (["task=toy_point", "engine=slurmm"], "slurmm"),
        (["task=toy_point", "run_dir=x"], "run_dir: expected no such key"),
    ):
        assert message in refused(main, *words, f"out={tmp_path / 'x'}")
    assert "out: expected out=" in refused(main, "task=toy_point")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "x"):
        line = refused(main, "experiment=smoke", "trainer.accelerator=cpu", f"out={tmp_path / 'x'}")
    assert "another sweep runs in" in line
