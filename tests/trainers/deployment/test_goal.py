import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.command.configuration import BadConfig
from trainers.deployment.controller import Controller
from trainers.deployment.goal import GoalSimulator
from trainers.deployment.observation_gate import Refused
from worldmodel.planners.cem import CEM


class Integrator:
    """s' = s + a / 2; a reward that a goal must not read."""

    action_dim, discount = 2, 1.0
    dynamics = SimpleNamespace()

    def step(self, latent, action):
        return latent + 0.5 * action

    def reward(self, latent):
        raise NotImplementedError

    value = propose = reward


def test_a_plan_leads_to_the_goal():
    planner = CEM(horizon=4, candidates=200, iterations=6, elites=20)
    for goal in ([0.9, -0.4], [0.0, 0.0], [-1.5, 1.5]):
        world = GoalSimulator(Integrator(), torch.tensor(goal))
        plan = planner.plan(world, torch.zeros(1, 2), generator=torch.Generator().manual_seed(0))
        end = 0.5 * plan.mean[0].sum(0)
        torch.testing.assert_close(end, torch.tensor(goal), atol=0.1, rtol=0)


def test_the_distance_is_zero_at_the_goal_and_grows_from_it():
    world = GoalSimulator(Integrator(), torch.tensor([1.0, 2.0]))
    latent = torch.tensor([[1.0, 2.0], [1.0, 3.0], [-3.0, 2.0]])
    torch.testing.assert_close(world.reward(latent), torch.tensor([0.0, -0.5, -2.0]))
    assert world.propose(latent, None) is None


def frame(t):
    return np.random.default_rng(t).integers(0, 256, (16, 16, 3), np.uint8)


def test_a_controller_with_a_goal_plans_for_it_and_leaves_the_policy_alone(tmp_path):
    controller = Controller(tiny_bundle(tmp_path / "b"), planner="inline", budget_s=30.0)
    reward, _ = controller.step(frame(0))
    controller.reset()
    controller.set_goal(frame(5))
    goal, status = controller.step(frame(0))
    assert status.source == "plan" and not np.array_equal(reward, goal) and status.predicted_return < 0
    controller.planner.ask = lambda request, until: time.sleep(0)
    assert controller.step(frame(1))[1].source == "shifted_plan"
    assert [controller.step(frame(t))[1].source for t in (2, 3)] == ["shifted_plan", "safe"]
    controller.set_goal(None)
    assert controller.step(frame(4))[1].source == "policy"
    with pytest.raises(Refused, match=r"^blank"):
        controller.set_goal(np.zeros((16, 16, 3), np.uint8))


def test_what_is_left_of_a_plan_to_another_goal_is_not_executed(tmp_path):
    controller = Controller(tiny_bundle(tmp_path / "b", what="planner"), planner="inline", budget_s=30.0)
    controller.set_goal(frame(5))
    controller.step(frame(0))
    ask, controller.planner.ask = controller.planner.ask, lambda request, until: None
    assert controller.step(frame(1))[1].source == "shifted_plan"
    controller.set_goal(frame(6))
    assert controller.step(frame(2))[1].source == "safe"
    controller.planner.ask = ask
    assert [controller.step(frame(t))[1].source for t in (3, 4)] == ["plan", "plan"]
    controller.planner.ask = lambda request, until: None
    controller.set_goal(None)
    assert controller.step(frame(5))[1].source == "safe"


def test_a_picture_that_is_refused_leaves_the_goal_as_it_was(tmp_path):
    controller = Controller(tiny_bundle(tmp_path / "b", what="planner"), planner="inline", budget_s=30.0)
    controller.set_goal(frame(5))
    wanted, _ = controller.step(frame(0))
    with pytest.raises(Refused, match="shape: pixels"):
        controller.set_goal(frame(6) / 255)
    controller.reset()
    np.testing.assert_array_equal(controller.step(frame(0))[0], wanted)


def test_a_planner_that_needs_rewards_is_refused_a_goal(tmp_path):
    bundle = tiny_bundle(tmp_path / "b", "planner=confidence", "agent.heads.name=laplace")
    controller = Controller(bundle, planner="inline", budget_s=30.0)
    with pytest.raises(BadConfig, match="goal: expected a planner that can do without rewards"):
        controller.set_goal(frame(5))
    assert controller.step(frame(0))[1].source == "plan"
