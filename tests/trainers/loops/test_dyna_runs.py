"""Dyna from pixels as a run: it resumes as if it had not stopped, on one rank and on two."""

import pytest
import torch

from tests.trainers.loops.test_resume import checkpoint, curves, differences
from trainers import fit

DYNA = ("policy=dyna", "policy.target.name=steve", "policy.learner.name=soft", "agent.act_with=actor")
SHORT = ("task.env_steps=80", "evaluation.every=1000", "evaluation.final_episodes=1", "data.update_ratio=0.15")
POLICIES = {"dyna_q": ("policy=dyna_q", "policy.rollout=2", "policy.loss=two_hot"), "dyna": DYNA}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_is_the_uninterrupted_one(toy, tmp_path, policy: str) -> None:
    options = [*toy, *SHORT, *POLICIES[policy]]
    whole = fit.main([*options, f"run_dir={tmp_path / 'whole'}"])
    fit.main([*options, "task.env_steps=60", f"run_dir={tmp_path / 'parts'}"])
    parts = fit.main([f"resume={tmp_path / 'parts'}", "task.env_steps=80"])
    assert parts["returns"] == whole["returns"] and parts["updates"] == whole["updates"] == 12
    ours, theirs = checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole")
    assert differences(ours["state_dict"], theirs["state_dict"]) == []
    assert differences(ours["optimizer_states"], theirs["optimizer_states"]) == []
    assert any("policy" in name for name in theirs["state_dict"])
    assert "policy/recorded_error" in curves(tmp_path / "whole")


def test_discrete_actions_are_the_environment_s_own(tmp_path) -> None:
    pytest.importorskip("gymnasium")
    small = ("experiment=smoke", "task=gym:CartPole-v1", "task.env.size=16", "task.env_steps=60")
    quick = ("evaluation.every=1000", "evaluation.final_episodes=1", "data.update_ratio=0.15", "agent.explore_std=0")
    options = (*small, *quick, "policy=dyna_q", "agent.act_with=actor", "trainer.accelerator=cpu")
    result = fit.main([*options, f"run_dir={tmp_path / 'run'}"])
    assert result["status"] == "finished" and result["updates"] >= 4
    weights = checkpoint(tmp_path / "run")["state_dict"]
    assert weights["agent.policy.actor.q.net.6.bias"].shape == (2,)  # left and right, not a grid of two dimensions
    assert weights["agent.continuation.net.0.weight"].numel()  # the pole falls: branches end there


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_two_ranks_resume_too(runs, toy, tmp_path, policy: str) -> None:
    ranks = ("trainer.devices=2", "trainer.strategy=ddp")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, more in ((whole, ()), (parts, ("task.env_steps=80",))):
        run = runs.cli("trainers.fit", *toy, *POLICIES[policy], *ranks, *more, f"run_dir={folder}", OMP_NUM_THREADS="1")
        assert run.wait(400) == 0, run.err.read_text()
    run = runs.cli("trainers.fit", f"resume={parts}", "task.env_steps=120", OMP_NUM_THREADS="1")
    assert run.wait(400) == 0, run.err.read_text()
    ours, theirs = checkpoint(parts)["state_dict"], checkpoint(whole)["state_dict"]
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
