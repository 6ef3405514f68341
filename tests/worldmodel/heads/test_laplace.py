"""A head's posterior over its last layer: Laplace's curvature, calibration, and what planners make of it."""

import pytest
import torch

from tests.conftest import random_batch, small_agent
from worldmodel.heads.laplace import LaplaceHead
from worldmodel.planners.cem import CEM
from worldmodel.planners.confidence import ConfidencePlanner
from worldmodel.simulators.latent import score
from worldmodel.simulators.wrapped import ConfidenceSimulator
from worldmodel.uncertainty.last_layer import LastLayerPosterior, with_one


def test_the_covariance_is_laplace_s_the_inverse_curvature_at_the_optimum() -> None:
    """Of -log p(y, w) with noise σ and the prior N(0, σ² / precision)."""
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    row, ridge = with_one(x), 1.5 * torch.eye(4, dtype=torch.float64)
    best = torch.linalg.solve(row.T @ row + ridge, row.T @ y)
    posterior = LastLayerPosterior(3, 1, precision=1.5, rate=0.0)
    posterior.add(x, (row @ best - y)[:, None], torch.ones(30))

    def energy(w: torch.Tensor) -> torch.Tensor:
        return ((row @ w - y).square().sum() + 1.5 * w.square().sum()) / (2 * posterior.variance[0])

    assert torch.func.grad(energy)(best).abs().max() < 1e-6
    covariance = posterior.variance * torch.cholesky_inverse(posterior.factor())
    torch.testing.assert_close(covariance.inverse(), torch.func.hessian(energy)(best), rtol=1e-6, atol=1e-6)


def test_intervals_of_a_linear_world_cover_what_they_say() -> None:
    covered = []
    for _ in range(300):
        w, x = torch.randn(4, dtype=torch.float64), torch.randn(42, 3, dtype=torch.float64)
        y = with_one(x) @ w + 0.4 * torch.randn(42, dtype=torch.float64)
        row = with_one(x[:40])
        best = torch.linalg.solve(row.T @ row + torch.eye(4, dtype=torch.float64), row.T @ y[:40])
        posterior = LastLayerPosterior(3, 1, rate=0.0)
        posterior.add(x[:40], (row @ best - y[:40])[:, None], torch.ones(40))
        std = (posterior.epistemic(x[40:])[:, 0] + posterior.variance).sqrt()
        covered.append((y[40:] - with_one(x[40:]) @ best).abs() < 1.645 * std)
    assert 0.85 < torch.cat(covered).float().mean() < 0.95


def test_a_head_is_less_sure_away_from_its_data() -> None:
    head = LaplaceHead(latent_dim=2, scale=5.0, hidden=32).eval()
    near, far = torch.randn(100, 2) * 0.2 + torch.tensor([2.0, 0.0]), torch.tensor([[-2.0, 1.0]])
    target = torch.full((100,), 3.0) + torch.randn(100)
    torch.testing.assert_close(head.loss(near, target), ((head(near) - target) / 5).square())
    assert head.posterior.seen == 0
    head.condition(near, target, torch.ones(100))
    report = head.report(near)
    missed = (head(near) - target).square().sum()
    assert missed / 100 < report["aleatoric"] ** 2 < missed / (100 - 33)  # some of the 33 weights are the prior's
    assert head.epistemic(far) > 5 * head.epistemic(near).max()
    variance = head.posterior.epistemic(head.net[:-1](near))[:, 0]
    torch.testing.assert_close(head.epistemic(near), 5 * variance.sqrt().float())
    before = report["epistemic"]
    head.count_rows(100 * 100)
    assert 5 < before / head.report(near)["epistemic"] < 11  # a hundred times the rows, a tenth of the std


def confident(**options: object) -> torch.nn.Module:
    agent = small_agent("rssm_gaussian", **options)
    agent.reward = LaplaceHead(latent_dim=agent.dynamics.latent_dim, scale=1.0, hidden=16)
    torch.nn.init.normal_(agent.reward.net[-1].weight)
    return agent


def test_a_batch_s_report_has_both_uncertainties_of_the_reward() -> None:
    metrics = confident().losses(random_batch()).metrics
    assert metrics["reward/epistemic"] > 0 and metrics["reward/aleatoric"] > 0
    assert "reward/epistemic" not in small_agent().losses(random_batch()).metrics


def test_a_reward_s_posterior_takes_in_the_rows_that_arrived_in_training() -> None:
    """Not a reset's, and not those that are predicted open-loop; values have nothing to add."""
    agent, batch = confident(unroll=2), random_batch(first=3)
    value = agent.policy.value = LaplaceHead(latent_dim=agent.dynamics.latent_dim, scale=1.0, hidden=16)
    agent.losses(batch)
    assert agent.reward.posterior.seen == 3 * 6 and value.posterior.seen == 0
    agent.eval().losses(batch)
    assert agent.reward.posterior.seen == 3 * 6
    head = confident().reward
    latent, target, arrived = torch.randn(2, 5, 20), torch.randn(2, 5), torch.ones(2, 5)
    arrived[:, 2] = 0
    head.condition(latent, target, arrived)
    expected = head.loss(latent, target)[arrived.bool()].mean()
    torch.testing.assert_close(head.posterior.variance[0].float(), expected)


def test_scores_are_those_of_rewards_with_kappa_times_their_std() -> None:
    agent = confident()
    agent.losses(random_batch())
    world, latent, actions = agent.simulator(), torch.randn(2, agent.dynamics.latent_dim), torch.randn(2, 4, 3, 2)
    found = {kappa: score(ConfidenceSimulator(world, kappa=kappa), latent, actions) for kappa in (0.0, -2.0)}
    state, total = latent[:, None].expand(-1, 4, -1).flatten(0, 1), torch.zeros(8)
    for k in range(3):
        state = world.step(state, actions[:, :, k].flatten(0, 1))
        total += world.discount**k * world.reward_std(state)
    torch.testing.assert_close(found[-2.0], found[0.0] - 2 * total.view(2, 4), rtol=1e-4, atol=1e-4)
    assert (total > 0).all()


def test_a_plan_without_kappa_is_the_search_s_own_and_others_predict_more_or_less() -> None:
    agent = confident()
    agent.losses(random_batch())
    options = {"horizon": 3, "candidates": 16, "elites": 4, "iterations": 2}

    def plan(planner: object) -> object:
        latent = torch.ones(1, agent.dynamics.latent_dim)
        with torch.no_grad():
            return planner.plan(agent.simulator(), latent, generator=torch.Generator().manual_seed(0))

    less, same, more = (plan(ConfidencePlanner(kappa=kappa, **options)) for kappa in (-3.0, 0.0, 3.0))
    torch.testing.assert_close(same.action, plan(CEM(**options)).action, rtol=0, atol=1e-4)
    assert less.value < same.value < more.value


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"precision": 0.0}, {"rate": 2.0}, {"layers": 0}):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: expected"):
            LaplaceHead(latent_dim=2, scale=1.0, **wrong)
    with pytest.raises(ValueError, match=r"^search: expected one of"):
        ConfidencePlanner(search="oracle", horizon=2)
    with pytest.raises(TypeError, match="a posterior, got ScalarHead"):
        ConfidencePlanner(horizon=2, candidates=4, elites=2).plan(small_agent().simulator(), torch.zeros(1, 20))
