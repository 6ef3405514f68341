"""A known delay against closed forms: a robot whose state is the sum of its commands, and a model that is exact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainers.bundle.bundle import Bundle
from trainers.bundle.control_spec import ControlSpec, Limits
from trainers.deployment.controller import Controller
from trainers.deployment.planning import Planned
from worldmodel.agents.student_in_task import StudentInTask
from worldmodel.interfaces import Belief, Carry
from worldmodel.spec import EnvSpec

HORIZON, DECISIONS = 3, 12
# action_latency_s, observation_age_s, hz, and the decisions that they come to; none is a multiple of the period
DELAYS = [(0.013, 0.008, 20, 0), (0.0, 0.0, 20, 0), (0.031, 0.026, 20, 1), (0.02, 0.013, 30, 1), (0.071, 0.022, 20, 2)]


class Sum(nn.Module):
    """s' = s + a; every observation is s."""

    latent_dim = carry_dim = 1

    def observe(self, embed, action, is_first, carry, *, sample):
        return Belief(embed, embed[:, 0], {})

    def predict(self, latent, action):
        return latent + action


class Norm(nn.Module):
    names = parts = ()

    def forward(self, rows):
        return rows["state"]


class Encoder(nn.Identity):
    embed_dim = 1


class Agent(StudentInTask):
    """What a controller asks of an agent, without any weights."""

    def __init__(self):
        nn.Module.__init__(self)
        self.norm, self.encoder, self.dynamics, self.actor, self.action_dim = Norm(), Encoder(), Sum(), None, 1

    def initial_carry(self, batch):
        zeros, plan = torch.zeros(batch, 1), torch.full((batch, HORIZON, 1), torch.nan)
        return Carry(zeros, zeros, plan, torch.ones(batch, dtype=torch.int64))


class RandomPlans:
    """Plans at random, and takes note of where each starts."""

    def __init__(self):
        self.rng, self.starts = np.random.default_rng(0), []

    def ask(self, request, *, until):
        self.starts.append(float(request.latent[0]))
        return Planned(self.rng.uniform(-1, 1, (HORIZON, 1)).astype(np.float32), 0.0)

    def close(self):
        pass


@pytest.fixture
def controller(monkeypatch):
    monkeypatch.setattr(Bundle, "build", lambda self: Agent())

    def made(latency, age, hz):
        env = EnvSpec("sum", images={}, vectors={"state": 1}, action_dim=1, action_repeat=1, episode_steps=99)
        times = {"hz": hz, "action_latency_s": latency, "observation_age_s": age}
        control = ControlSpec(env=env, limits=Limits(frozen=0, max_age_s=60.0), **times)
        return Controller(Bundle(control, "planner", {}, {}, "", {}, {}, Path()), planner=RandomPlans())

    return made


@pytest.mark.parametrize(("latency", "age", "hz", "delay"), DELAYS)
@pytest.mark.parametrize("missing", [(), (4, 5)])
def test_a_plan_starts_where_the_commands_under_way_lead(controller, latency, age, hz, delay, missing):
    """The robot acts by whole decisions: the state that was planned from is the one in which the plan begins."""
    robot = controller(latency, age, hz)
    assert robot.control.delay == delay
    commands, states = [], [0.0]
    for k in range(DECISIONS):
        action, status = robot.step(None if k in missing else np.float32([states[k]]))
        assert status.source == "plan"
        commands.append(float(action[0]))
        states.append(states[k] + (commands[k - delay] if k >= delay else 0.0))
    for k in range(DECISIONS - delay):
        assert robot.planner.starts[k] == pytest.approx(states[k + delay], abs=1e-5), k
    assert robot._estimator.prediction_error == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("latency", "age", "hz", "delay"), DELAYS)
def test_a_robot_in_continuous_time_is_off_by_the_rest_of_a_period_alone(controller, latency, age, hz, delay):
    """Command k acts for a period, (latency + age) after frame k; when it begins, all before it have acted whole."""
    robot, exact = controller(latency, age, hz), (latency + age) * hz
    rest = exact - delay  # in periods, at most half of one
    commands = []
    for k in range(DECISIONS):
        acted = sum(command * np.clip(k - exact - j, 0, 1) for j, command in enumerate(commands))
        action, _ = robot.step(np.float32([acted + 5.0]))  # where it begins is known by observation alone
        begun = 5.0 + sum(commands)
        off = robot.planner.starts[k] - begun
        nearest = [0.0, *commands, 0.0][max(k - delay, 0) : k - delay + 2] if k >= delay else [0.0]
        assert abs(off) <= abs(rest) * max(map(abs, nearest)) + 1e-5, k
        commands.append(float(action[0]))
