"""From a planner to a policy: weighted candidates, the search's Gaussian, and CEM's linear student on an LQ plant."""

import pytest
import torch
from torch import Tensor

from tests.rigs.riccati import infinite_horizon
from worldmodel.distillation.planner_gaussian import PlannerTarget, planner_kl
from worldmodel.distillation.weighted_elites import elite_weights, elites_loss
from worldmodel.planners.cem import CEM
from worldmodel.planners.ilqr import ILQR

R, N, A = 4, 9, 2


def test_the_best_gaussian_has_the_candidates_weighted_moments() -> None:
    actions, scores = torch.randn(R, N, A).double(), torch.randn(R, N).double()
    weight = elite_weights(scores, 0.5)[..., None]
    mean = (weight * actions).sum(1)
    std = (weight * (actions - mean[:, None]) ** 2).sum(1).sqrt()
    policy = (mean.requires_grad_(), std.requires_grad_())
    gradients = torch.autograd.grad(elites_loss(policy, actions, scores, temperature=0.5).sum(), policy)
    assert max(g.abs().max() for g in gradients) < 1e-12


def test_temperatures_lead_from_the_best_candidate_to_all_alike() -> None:
    scores = torch.randn(R, N).double()
    best = torch.nn.functional.one_hot(scores.argmax(-1), N).double()
    torch.testing.assert_close(elite_weights(scores, 1e-4), best)
    torch.testing.assert_close(elite_weights(scores, 1e9), torch.full_like(scores, 1 / N), rtol=0, atol=1e-8)


def test_candidates_without_a_finite_return_do_not_count() -> None:
    scores = torch.tensor([[1.0, float("nan"), float("inf"), 1.0], [-float("inf")] * 4])
    torch.testing.assert_close(elite_weights(scores, 1.0), torch.tensor([[0.5, 0.0, 0.0, 0.5], [0.0] * 4]))


def test_the_kl_is_that_of_the_policy_to_the_planner() -> None:
    mean, std, goal, spread = (torch.rand(R, A).double() + 0.1 for _ in range(4))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(goal, spread)).sum(-1)
    torch.testing.assert_close(planner_kl((mean, std), PlannerTarget(goal, spread)), expected)


class Plant:
    """x' = F x + G u with the cost ½ x'ᵀQx' + ½ uᵀRu; a latent is the state and the action that led to it."""

    action_dim, discount = 1, 1.0

    def __init__(self) -> None:
        self.F = torch.tensor([[1.0, 0.2], [-0.1, 0.9]], dtype=torch.float64)
        self.G = torch.tensor([[0.0], [0.4]], dtype=torch.float64)
        self.Q, self.R = torch.diag(torch.tensor([1.0, 0.2], dtype=torch.float64)), torch.eye(1, dtype=torch.float64)
        self.gains = infinite_horizon(self.F, self.G, self.Q, self.R)

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., :2] @ self.F.mT + action @ self.G.mT, action], -1)

    def reward(self, latent: Tensor) -> Tensor:
        x, u = latent[..., :2], latent[..., 2:]
        return -0.5 * ((x @ self.Q) * x).sum(-1) - 0.5 * ((u @ self.R) * u).sum(-1)

    def value(self, latent: Tensor) -> Tensor:
        x = latent[..., :2]
        return -0.5 * ((x @ (self.gains.V - self.Q)) * x).sum(-1)

    def propose(self, latent: Tensor, generator: object) -> None:
        return None


@pytest.fixture(scope="module")
def planned() -> tuple[Plant, Tensor, object]:
    """States, and what CEM plans from them with the optimal value at its horizon."""
    plant, generator = Plant(), torch.Generator().manual_seed(0)
    state = torch.rand(128, 2, generator=generator, dtype=torch.float64) - 0.5
    cem = CEM(horizon=3, candidates=128, elites=16, iterations=12)
    latent = torch.cat([state, torch.zeros(128, 1, dtype=torch.float64)], 1)
    return plant, state, cem.plan(plant, latent, generator=generator)


def test_a_search_hands_out_the_gaussian_that_it_ended_with(planned) -> None:
    plan = planned[2]
    assert plan.std.shape == plan.mean.shape and 0 < plan.std[:, 0].max() < 0.1
    assert PlannerTarget.of(plan, least_std=0.2).std.min() == 0.2
    plant, state, _ = planned
    latent = torch.cat([state, torch.zeros(len(state), 1, dtype=torch.float64)], 1)
    alone = ILQR(horizon=3, iterations=2).plan(plant, latent)
    assert alone.std is None and (PlannerTarget.of(alone, least_std=0.2).std == 0.2).all()


def test_cem_s_linear_student_has_the_riccati_gain(planned) -> None:
    plant, state, plan = planned
    gain = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    target, optimizer = PlannerTarget.of(plan, least_std=0.02), torch.optim.LBFGS([gain, log_std], max_iter=100)

    def loss() -> Tensor:
        optimizer.zero_grad()
        mean = state @ gain.mT
        total = planner_kl((mean, log_std.exp().expand_as(mean)), target).mean()
        total.backward()
        return total

    optimizer.step(loss)
    assert (gain.detach() - plant.gains.K).norm() <= 0.02 * plant.gains.K.norm(), (gain, plant.gains.K)
