import copy

import torch

from trainers.acting.agent_policy import seconds_per_decision
from trainers.build.agent import build_agent
from trainers.command.configuration import load_config
from worldmodel.spec import EnvSpec


def test_a_trial_decision_takes_time_and_changes_nothing():
    spec = EnvSpec("", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=2, episode_steps=10)
    agent = build_agent(load_config(["experiment=smoke"]), spec).eval()
    weights, random = copy.deepcopy(agent.state_dict()), torch.get_rng_state()
    assert 0.0 < seconds_per_decision(agent, spec, envs=3) < 60.0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(now, weights[name]) for name, now in agent.state_dict().items())
