import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.pool import EnvPool
from datamodules.envs.seeds import episode_seed
from trainers import evaluate
from trainers.build import environments
from trainers.run_folder.checkpoint import newest
from worldmodel.spec import EnvSpec


@pytest.fixture(scope="module")
def evaluated(runs, finished, tmp_path_factory):
    """Results of one checkpoint: plain, with another planner, without one."""
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run_dir)
    arguments = {
        "plain": ["episodes=5", "envs=2"],
        "again": ["episodes=5", "envs=2"],
        "planner": ["episodes=2", "planner=planet", "planner.horizon=4", "planner.candidates=20", "planner.elites=5"],
        "actor": ["episodes=2", "seed=7", "agent.act_with=actor", f"checkpoint={newest(run_dir / 'checkpoints')}"],
    }
    evaluations = {}
    for name, words in arguments.items():
        run = runs.start("evaluate", f"checkpoint={run_dir}", *words)
        assert run.wait() == 0, run.err.read_text()
        assert "95% interval" in run.err.read_text()
        evaluations[name] = run.results()
    return run_dir, evaluations


def test_results(evaluated):
    run_dir, evaluations = evaluated
    results = evaluations["plain"]
    assert results["return_mean"] == pytest.approx(np.mean(results["returns"])) and len(results["returns"]) == 5
    assert results["return_ci95"][0] <= results["return_mean"] <= results["return_ci95"][1]
    assert (results["env_steps"], results["decisions"], results["envs_per_decision"]) == (100, 100, 2)
    assert len(set(results["episode_seeds"])) == 5 and results["seconds"] > 0
    assert 0 < results["decision_ms"]["p50"] <= results["decision_ms"]["p99"]
    written = json.loads(Path(results["results_file"]).read_text())
    assert written["return_mean"] == results["return_mean"] and written["config"]["task"]["name"] == "toy_point"
    assert written["versions"]["torch"]
    assert all(str(run_dir / "evaluations") in path and Path(path).stat().st_size for path in results["files"])
    assert results["run_dir"] == str(run_dir) and results["checkpoint"] == str(newest(run_dir / "checkpoints"))


def test_the_same_seeds_give_the_same_returns(evaluated):
    evaluations = evaluated[1]
    assert evaluations["again"]["returns"] == evaluations["plain"]["returns"]
    assert evaluations["again"]["results_file"] != evaluations["plain"]["results_file"]
    assert not set(evaluations["actor"]["episode_seeds"]) & set(evaluations["plain"]["episode_seeds"])


def test_overrides_reach_the_agent(evaluated):
    evaluations = evaluated[1]
    assert (evaluations["planner"]["planner"]["horizon"], evaluations["planner"]["planner"]["policy_candidates"]) == (
        4,
        0,
    )
    assert evaluations["planner"]["episode_seeds"] == evaluations["plain"]["episode_seeds"][:2]
    assert evaluations["planner"]["returns"] != evaluations["plain"]["returns"][:2]
    assert evaluations["actor"]["act_with"] == "actor" and evaluations["actor"]["seed"] == 7
    assert evaluations["plain"]["act_with"] == "planner"


def test_training_seeds_are_never_evaluated(evaluated):
    trained = {episode_seed(0, rank, index, n) for rank in range(4) for index in range(4) for n in range(500)}
    assert not trained & set(evaluated[1]["plain"]["episode_seeds"])


def test_damaged_newest_checkpoint(runs, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    bad = newest(tmp_path / "run" / "checkpoints")
    weights = (bad / "model.safetensors").read_bytes()
    (bad / "model.safetensors").write_bytes(weights[:100] + bytes([weights[100] ^ 1]) + weights[101:])
    run = runs.start("evaluate", f"checkpoint={tmp_path / 'run'}", "episodes=1")
    assert run.wait() == 0, run.err.read_text()
    lines = run.err.read_text().splitlines()
    assert lines[0].startswith("warning: checkpoint left out: ") and bad.name in lines[0]
    assert run.results()["checkpoint"] != str(bad)
    direct = runs.start("evaluate", f"checkpoint={bad}", "episodes=1")
    assert direct.wait() == 2
    lines = direct.err.read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("CheckpointDamaged: ") and "SHA-256" in lines[0]


def test_refused(refused, finished, tmp_path):
    cases = {
        (): ("checkpoint", "got none"),
        (f"checkpoint={tmp_path}",): ("checkpoint", str(tmp_path), "run folder"),
        ("checkpoint=/no/such/run",): ("checkpoint", "/no/such/run"),
        (f"checkpoint={finished}", "episodes=0"): ("episodes", "at least 1", "'0'"),
        (f"checkpoint={finished}", "episodes=all"): ("episodes", "whole number", "'all'"),
        (f"checkpoint={finished}", "envs=0"): ("envs", "at least 1", "'0'"),
        (f"checkpoint={finished}", "seed=-1"): ("seed", "at least 0", "'-1'"),
        (f"checkpoint={finished}", "device=abacus"): ("device", "cpu", "'abacus'"),
        (f"checkpoint={finished}", "planner.horizon=0"): ("planner.horizon", "at least 1", "0"),
        (f"checkpoint={finished}", "planner.horizn=3"): ("did you mean planner.horizon",),
        (f"checkpoint={finished}", "episode=3"): ("episode", "episode"),
        (f"checkpoint={finished}", "policy=none"): ("checkpoint", "surplus"),
        (f"checkpoint={finished}", "policy=none", "agent.act_with=actor"): ("act_with", "actor"),
        (f"checkpoint={finished}", "task.env.size=32"): (
            "checkpoint",
            "expected observed 3x16x16 as in training",
            "got 3x32x32",
        ),
        (f"checkpoint={finished}", "episodes"): ("expected one", "'episodes'"),
    }
    for arguments, parts in cases.items():
        line = refused(evaluate.main, *arguments)
        assert "\n" not in line and all(part in line for part in parts), (arguments, line)


@pytest.mark.parametrize(("count", "discrete", "takes"), [(6, False, "6 continuous"), (2, True, "2 discrete")])
def test_checkpoint_of_other_actions(refused, finished, monkeypatch, count, discrete, takes):
    sizes = {"action_dim": count, "discrete": discrete, "action_repeat": 1, "episode_steps": 20}
    spec = EnvSpec("x", images={"pixels": (3, 16, 16)}, **sizes)

    class Pool(EnvPool):
        def __init__(self):
            self.spec, self.renderer, self.notes, self._envs = spec, "none", (), []

        def close(self):
            """No worker was started."""

    monkeypatch.setattr(environments, "open_pool", lambda config, count, **_: Pool())
    line = refused(evaluate.main, f"checkpoint={finished}")
    assert line == f"BadValue: checkpoint: expected actions 2 continuous as in training, got {takes}"
