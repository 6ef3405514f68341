import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.pool import episode_seed
from trainers import evaluate
from trainers.build import environments
from trainers.run_folder.checkpoint import newest
from worldmodel.spec import EnvSpec


@pytest.fixture(scope="module")
def evaluated(runs, finished, tmp_path_factory):
    """Receipts of one checkpoint: plain, with another planner, without one."""
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run_dir)
    arguments = {
        "plain": ["episodes=5", "envs=2"],
        "again": ["episodes=5", "envs=2"],
        "planner": ["episodes=2", "planner=planet", "planner.horizon=4", "planner.candidates=20", "planner.elites=5"],
        "actor": ["episodes=2", "seed=7", "agent.act_with=actor", f"checkpoint={newest(run_dir / 'checkpoints')}"],
    }
    receipts = {}
    for name, words in arguments.items():
        run = runs.start("evaluate", f"checkpoint={run_dir}", *words)
        assert run.wait() == 0, run.err.read_text()
        assert run.err.read_text() == ""
        receipts[name] = run.results()
    return run_dir, receipts


def test_receipt(evaluated):
    run_dir, receipts = evaluated
    receipt = receipts["plain"]
    assert receipt["return_mean"] == pytest.approx(np.mean(receipt["returns"])) and len(receipt["returns"]) == 5
    assert receipt["return_ci95"][0] <= receipt["return_mean"] <= receipt["return_ci95"][1]
    assert (receipt["env_steps"], receipt["decisions"], receipt["envs_per_decision"]) == (100, 100, 2)
    assert len(set(receipt["episode_seeds"])) == 5 and receipt["seconds"] > 0
    assert 0 < receipt["decision_ms"]["p50"] <= receipt["decision_ms"]["p99"]
    written = json.loads(Path(receipt["receipt"]).read_text())
    assert written["return_mean"] == receipt["return_mean"] and written["config"]["task"]["name"] == "toy_point"
    assert written["versions"]["torch"]
    assert all(str(run_dir / "evaluations") in path and Path(path).stat().st_size for path in receipt["files"])
    assert receipt["run_dir"] == str(run_dir) and receipt["checkpoint"] == str(newest(run_dir / "checkpoints"))


def test_the_same_seeds_give_the_same_returns(evaluated):
    receipts = evaluated[1]
    assert receipts["again"]["returns"] == receipts["plain"]["returns"]
    assert receipts["again"]["receipt"] != receipts["plain"]["receipt"]
    assert not set(receipts["actor"]["episode_seeds"]) & set(receipts["plain"]["episode_seeds"])


def test_overrides_reach_the_agent(evaluated):
    receipts = evaluated[1]
    assert (receipts["planner"]["planner"]["horizon"], receipts["planner"]["planner"]["policy_candidates"]) == (4, 0)
    assert receipts["planner"]["episode_seeds"] == receipts["plain"]["episode_seeds"][:2]
    assert receipts["planner"]["returns"] != receipts["plain"]["returns"][:2]
    assert receipts["actor"]["act_with"] == "actor" and receipts["actor"]["seed"] == 7
    assert receipts["plain"]["act_with"] == "planner"


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
    assert len(lines) == 1 and lines[0].startswith("warning: checkpoint left out: ") and bad.name in lines[0]
    assert run.results()["checkpoint"] != str(bad)
    direct = runs.start("evaluate", f"checkpoint={bad}", "episodes=1")
    assert direct.wait() == 2
    lines = direct.err.read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("CheckpointDamaged: ") and "SHA-256" in lines[0]


def test_refused(refused, finished, tmp_path):
    cases = {
        (): ("checkpoint", "got none"),
        (f"checkpoint={tmp_path}",): ("checkpoint", str(tmp_path), "intact checkpoint"),
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
        (f"checkpoint={finished}", "task.env.size=32"): ("checkpoint", "trained on 16x16", "gives 32x32"),
        (f"checkpoint={finished}", "episodes"): ("key=value", "'episodes'"),
    }
    for arguments, parts in cases.items():
        line = refused(evaluate.main, *arguments)
        assert "\n" not in line and all(part in line for part in parts), (arguments, line)


def test_checkpoint_of_another_action_size(refused, finished, monkeypatch):
    class Pool:
        spec = EnvSpec("x", images={"pixels": (3, 16, 16)}, action_dim=6, action_repeat=1, episode_steps=20)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(environments, "open_pool", lambda config, count, **_: Pool())
    line = refused(evaluate.main, f"checkpoint={finished}")
    assert line == "BadConfig: checkpoint: the model was trained with 2 actions, the task takes 6"
