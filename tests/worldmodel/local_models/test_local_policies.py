"""Linear-Gaussian policies against simulation, Riccati and the definition of their constraint."""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are

from tests.worldmodel.local_models import linear_plants as plants
from worldmodel.local_models.kl_constraint import constrain_kl
from worldmodel.local_models.linear_gaussian import (
    Gaussian,
    LinearGaussianDynamics,
    LinearGaussianPolicy,
    forward_pass,
    policy_kl,
)
from worldmodel.local_models.max_ent_lqr import max_ent_lqr
from worldmodel.local_models.quadratic_cost import QuadraticCost, expected_cost, negative_log_prob

LIMITS = [10.0**power for power in range(-3, 3)]


def test_the_forward_pass_has_the_moments_of_a_hundred_thousand_simulations() -> None:
    plant, controller, first = plants.dynamics(), plants.policy(), plants.start()
    states, controls = plants.simulate(plant, controller, first, 100_000)
    found = forward_pass(plant, controller, first)
    spread = found.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((states.mean(1) - found.mean).abs() / spread).max() < 0.02
    centred = states - states.mean(1, keepdim=True)
    covariance = torch.einsum("bnti,bntj->btij", centred, centred) / 100_000
    assert ((covariance - found.covariance).abs() / (spread[..., None] * spread[..., None, :])).max() < 0.02
    z = torch.cat([states[:, :, :-1], controls], -1)
    cost = plants.cost()
    along = 0.5 * torch.einsum("bnti,btij,bntj->bn", z, cost.curvature, z) + torch.einsum("bnti,bti->bn", z, cost.slope)
    last = states[:, :, -1]
    end = 0.5 * torch.einsum("bni,bij,bnj->bn", last, cost.last_curvature, last)
    end = end + torch.einsum("bni,bi->bn", last, cost.last_slope)
    mean = expected_cost(cost, controller, found)
    error = (along + end).std(1) / 100_000**0.5
    assert (((along + end).mean(1) - mean).abs() < 4 * error).all()


def test_the_kl_of_two_policies_is_that_of_their_samples() -> None:
    plant, p, q, first = plants.dynamics(), plants.policy(20), plants.policy(25), plants.start()
    states, controls = plants.simulate(plant, p, first, 20_000)

    def log_prob(policy: LinearGaussianPolicy) -> torch.Tensor:
        normal = torch.distributions.MultivariateNormal(
            policy.mean(states[:, :, :-1]), policy.covariance[:, None].expand(-1, 20_000, -1, -1, -1)
        )
        return normal.log_prob(controls)

    ratio = log_prob(p) - log_prob(q)
    exact = policy_kl(p, q, forward_pass(plant, p, first))
    assert ((ratio.mean(1) - exact).abs() < 4 * ratio.std(1) / 20_000**0.5).all()
    assert policy_kl(p, p, forward_pass(plant, p, first)).abs().max() < 1e-10


def test_a_policy_s_log_probability_as_a_cost_is_its_own_but_for_a_constant() -> None:
    policy, cost = plants.policy(), negative_log_prob(plants.policy())
    states, controls = plants.double(3, 50, 6, 4, seed=1), plants.double(3, 50, 6, 2, seed=2)
    z = torch.cat([states, controls], -1)
    quadratic = 0.5 * torch.einsum("bnti,btij,bntj->bnt", z, cost.curvature, z) + (cost.slope[:, None] * z).sum(-1)
    normal = torch.distributions.MultivariateNormal(policy.mean(states), policy.covariance[:, None])
    constant = quadratic + normal.log_prob(controls)
    torch.testing.assert_close(constant, constant[:, :1].expand_as(constant), rtol=0, atol=1e-8)


def test_the_regulator_with_entropy_beats_its_neighbours() -> None:
    """It minimises E[cost] - H: in every direction of gain, offset and covariance, cost rises to second order."""
    plant, cost, first = plants.dynamics(), plants.cost(), plants.start()
    best = max_ent_lqr(plant, cost)

    def objective(policy: LinearGaussianPolicy) -> torch.Tensor:
        entropy = 0.5 * torch.linalg.slogdet(policy.covariance)[1].sum(1)
        return expected_cost(cost, policy, forward_pass(plant, policy, first)) - entropy

    parts = [x.clone().requires_grad_() for x in (best.K, best.k, best.covariance)]
    slopes = torch.autograd.grad(objective(LinearGaussianPolicy(*parts)).sum(), parts)
    assert all(slope.abs().max() < 1e-8 for slope in slopes)
    for seed in range(5):
        other = LinearGaussianPolicy(best.K + 0.1 * plants.policy(seed).K, best.k, best.covariance)
        assert (objective(other) > objective(best)).all()


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 30.0])
def test_over_a_long_horizon_the_gain_is_scipy_s_riccati_solution_at_any_temperature(temperature: float) -> None:
    F, G = 0.6 * plants.double(4, 4, seed=1), plants.double(4, 2, seed=2)
    Q, R = plants.positive(4, seed=3), plants.positive(2, seed=4)
    steps, zeros = 60, torch.zeros(1, 60, 4, dtype=torch.float64)
    plant = LinearGaussianDynamics(torch.cat([F, G], 1).expand(1, steps, 4, 6), zeros, torch.zeros(1, steps, 4, 4))
    stage = torch.block_diag(Q, R).expand(1, steps, 6, 6)
    cost = QuadraticCost(stage, stage.new_zeros(1, steps, 6), Q[None], Q.new_zeros(1, 4))
    found = max_ent_lqr(plant, cost.times(torch.full((1,), 1 / temperature, dtype=torch.float64)))
    P = torch.from_numpy(solve_discrete_are(*(x.numpy() for x in (F, G, Q, R))))
    curvature = R + G.mT @ P @ G
    torch.testing.assert_close(found.K[0, 0], -torch.linalg.solve(curvature, G.mT @ P @ F), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.covariance[0, 0], temperature * curvature.inverse(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("limit", LIMITS)
def test_the_constraint_holds_and_binds(limit: float) -> None:
    plant, cost, first, before = plants.dynamics(), plants.cost(), plants.start(), plants.policy()
    found = constrain_kl(plant, cost, before, first, limit=limit)
    assert (found.kl <= 1.1 * limit).all() and (found.kl >= 0.9 * limit).all()
    divergence = policy_kl(found.policy, before, forward_pass(plant, found.policy, first)).sum(1)
    torch.testing.assert_close(divergence, found.kl, rtol=1e-9, atol=1e-9)


def test_a_wide_constraint_does_not_bind() -> None:
    plant, cost, first, before = plants.dynamics(), plants.cost(), plants.start(), plants.policy()
    one = torch.ones(3, dtype=torch.float64)
    free = max_ent_lqr(plant, cost)
    found = constrain_kl(plant, cost, before, first, limit=1e6, temperature=1.0)
    torch.testing.assert_close(found.policy.K, free.K, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.policy.covariance, free.covariance, rtol=0, atol=1e-6)
    tight = constrain_kl(plant, cost, before, first, limit=1e6, temperature=1.0, attractors=[(before, 1e9 * one)])
    torch.testing.assert_close(tight.policy.K, before.K, rtol=0, atol=1e-6)


def test_cost_falls_as_the_constraint_widens_from_the_policy_of_before_to_the_regulator() -> None:
    plant, cost, first, before = plants.dynamics(), plants.cost(), plants.start(), plants.policy()
    found = [constrain_kl(plant, cost, before, first, limit=limit) for limit in [1e-9, *LIMITS, 1e4]]
    costs = [expected_cost(cost, c.policy, forward_pass(plant, c.policy, first)) for c in found]
    assert all((later <= earlier + 1e-9).all() for earlier, later in itertools.pairwise(costs))
    torch.testing.assert_close(found[0].policy.K, before.K, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[0].policy.k, before.k, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[-1].policy.K, max_ent_lqr(plant, cost).K, rtol=0, atol=1e-2)
    noise = [float(torch.linalg.det(c.policy.covariance).max()) for c in found]
    assert all(later < earlier for earlier, later in itertools.pairwise(noise[2:]))


def test_where_costs_are_not_convex_the_multiplier_makes_them_so() -> None:
    plant, first, before = plants.dynamics(), plants.start(), plants.policy()
    bowl = plants.cost()
    saddle = QuadraticCost(bowl.curvature - 3 * torch.eye(6).double(), bowl.slope, bowl.last_curvature, bowl.last_slope)
    assert max_ent_lqr(plant, saddle).K.isnan().any()
    found = constrain_kl(plant, saddle, before, first, limit=0.5)
    assert (found.kl <= 0.55).all() and found.policy.K.isfinite().all()
    better = expected_cost(saddle, found.policy, forward_pass(plant, found.policy, first))
    assert (better < expected_cost(saddle, before, forward_pass(plant, before, first))).all()


def test_starts_do_not_mix() -> None:
    plant, cost, first, before = plants.dynamics(), plants.cost(), plants.start(), plants.policy()
    whole = constrain_kl(plant, cost, before, first, limit=1.0)
    for b in range(3):
        one = slice(b, b + 1)
        alone = constrain_kl(
            LinearGaussianDynamics(plant.F[one], plant.f[one], plant.noise[one]),
            QuadraticCost(cost.curvature[one], cost.slope[one], cost.last_curvature[one], cost.last_slope[one]),
            LinearGaussianPolicy(before.K[one], before.k[one], before.covariance[one]),
            Gaussian(first.mean[one], first.covariance[one]),
            limit=1.0,
        )
        np.testing.assert_allclose(alone.policy.K[0], whole.policy.K[b], rtol=0, atol=1e-9)
