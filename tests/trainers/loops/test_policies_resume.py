"""Runs whose policy keeps more than weights from one update to the next: interrupted, and over two ranks."""

import signal

import pytest

from tests.trainers.loops.test_ddp import DDP
from tests.trainers.loops.test_resume import checkpoint, curves, differences
from trainers.build.agent import build_agent
from trainers.build.check_parts import fit_options
from trainers.command.configuration import load_config
from trainers.training.module import WorldModelModule
from worldmodel.spec import EnvSpec

GUIDED = ("policy.horizon=4", "policy.segment=3", "policy.controllers=2", "policy.samples=2", "agent.act_with=actor")
ASKED = ("policy.every=2", "policy.queries=8", "policy.memory=32", "policy.planner.iterations=1")
PARTS = ("policy.parts=2", "policy.reset_every=3", "policy.starts=8")
SETTINGS = {
    "gps": (("policy=gps", *GUIDED), "teachers.states"),
    "mdgps": (("policy=mdgps", *GUIDED), "teachers.states"),
    "distil": (("policy=distil", *ASKED), "answers.latents"),
    "divide_and_conquer": (("policy=divide_and_conquer", *PARTS), "partition.centres"),
    "mixed": (("policy=mixed",), "variances"),
}


@pytest.mark.parametrize(
    "policy", ["gps", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SETTINGS)[1:])]
)
def test_a_resumed_run_is_the_uninterrupted_one(runs, toy, tmp_path, policy):
    chosen, kept = SETTINGS[policy]
    settings = (*toy, *chosen)
    whole = runs.fit(*settings, f"run_dir={tmp_path / 'whole'}")
    assert whole.wait() == 0, whole.err.read_text()
    run = runs.fit(*settings, f"run_dir={tmp_path / 'run'}")
    run.wait_for_rows(tmp_path / "run", 3)
    run.send(signal.SIGINT)
    assert run.wait() == 130, run.err.read_text()
    resumed = runs.fit(f"resume={tmp_path / 'run'}")
    assert resumed.wait() == 0, resumed.err.read_text()
    found, expected = checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole")
    assert differences(found, expected) == []
    assert expected["state_dict"][f"agent.policy.{kept}"].abs().max() > 0
    ours, theirs = curves(tmp_path / "run"), curves(tmp_path / "whole")
    assert all((ours[name] == theirs[name])[ours[name] == ours[name]].all() for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("policy", SETTINGS)
def test_two_ranks_go_on_with_the_same(runs, toy, tmp_path, policy):
    """Else they would refuse to save: what is saved is compared first."""
    chosen, kept = SETTINGS[policy]
    first, second = runs.ranks(2, *toy, *chosen, *DDP, f"run_dir={tmp_path / 'run'}")
    assert first.wait() == 0, first.err.read_text()
    assert second.wait() == 0, second.err.read_text()
    assert checkpoint(tmp_path / "run")["state_dict"][f"agent.policy.{kept}"].abs().max() > 0


def test_of_samples_no_mean_is_taken_over_ranks():
    words = ["experiment=smoke", "policy=gps"]
    config = fit_options(load_config(words), words)
    spec = EnvSpec("x", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=20)
    module = WorldModelModule.of(config, build_agent(config, spec))
    statistics, samples = map(set, module.buffers_by_use)
    assert {"agent.policy.controllers.K", "agent.policy.teachers.states"} <= samples and not samples & statistics
    assert "agent.policy.report" in statistics
