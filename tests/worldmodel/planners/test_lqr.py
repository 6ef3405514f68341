"""The suite's own linear-quadratic task: our regulators against its solver, and their cost in its physics."""

import numpy as np
import pytest
import torch
from dm_control import suite
from dm_control.suite import lqr_solver
from torch import Tensor

from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics
from worldmodel.local_models.max_ent_lqr import max_ent_lqr
from worldmodel.local_models.quadratic_cost import QuadraticCost
from worldmodel.planners.ilqr import ILQR


class Measured:
    """lqr_2_1 as its physics moves: columns of F and G are steps from unit states and by a unit action."""

    action_dim, discount = 1, 1.0

    def __init__(self, environment) -> None:
        self.environment, self.effort = environment, environment.task.control_cost_coef
        self.F = torch.stack([self.stepped(row, 0.0) for row in np.eye(4)], 1)
        self.G = self.stepped(np.zeros(4), 1.0)[:, None]
        self.Q = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))
        self.R = self.effort * torch.eye(1, dtype=torch.float64)

    def stepped(self, state: np.ndarray, action: float) -> Tensor:
        physics = self.environment.physics
        with physics.reset_context():
            physics.set_state(state)
        physics.set_control([action])
        physics.step()
        return torch.tensor(physics.get_state())

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., :4] @ self.F.mT + action @ self.G.mT, action], -1)

    def propose(self, latent: Tensor, generator: object) -> None:
        return None

    def reward(self, latent: Tensor) -> Tensor:
        return -0.5 * latent[..., :2].square().sum(-1) - 0.5 * self.effort * latent[..., 4].square()

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])


@pytest.fixture(scope="module")
def environment():
    with suite.load("lqr", "lqr_2_1", task_kwargs={"random": 0}) as environment:
        yield environment


def test_the_stationary_regulator_is_the_suite_s_solution(environment) -> None:
    model, (cost, gain, _) = Measured(environment), lqr_solver.solve(environment)
    steps = 4000  # after which what is left of the cost to go's error is 1e-9
    zeros = torch.zeros(1, steps, 5, dtype=torch.float64)
    plant = LinearGaussianDynamics(
        torch.cat([model.F, model.G], 1).expand(1, steps, 4, 5), zeros[..., :4], torch.zeros(1, steps, 4, 4)
    )
    stage = torch.block_diag(model.Q, model.R).expand(1, steps, 5, 5)
    ours = max_ent_lqr(plant, QuadraticCost(stage, zeros, model.Q[None], zeros[:, 0, :4]))
    torch.testing.assert_close(ours.K[0, 0], torch.tensor(gain), rtol=1e-6, atol=1e-6)
    curvature = model.R + model.G.mT @ torch.tensor(cost) @ model.G
    torch.testing.assert_close(ours.covariance[0, 0], curvature.inverse(), rtol=1e-6, atol=1e-6)


def test_ilqr_s_plan_costs_in_the_task_what_the_suite_s_policy_costs(environment) -> None:
    model, (cost, gain, decay) = Measured(environment), lqr_solver.solve(environment)
    steps = int(np.ceil(np.log(2e-2) / np.log(decay)))  # what is left after them is 4e-4 of the cost
    environment.reset()
    start = environment.physics.get_state()
    latent = torch.cat([torch.tensor(start), torch.zeros(1, dtype=torch.float64)])[None]
    plan = ILQR(horizon=steps, iterations=1, bounded=False).plan(model, latent)
    total = sum(1 - environment.step(action).reward for action in plan.mean[0].numpy())
    best = 0.5 * start @ cost @ start - 0.5 * start[:2] @ start[:2]  # the solver counts the start's cost too
    assert total == pytest.approx(best, rel=1e-3)
    np.testing.assert_allclose(plan.action[0], gain @ start, rtol=1e-3, atol=1e-3)
