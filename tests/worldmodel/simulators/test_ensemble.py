"""Particles against brute force, the moments of both propagations, and the outlier that only one model falls for."""

import pytest
import torch
from torch import Tensor

from tests.conftest import random_batch, small_agent
from worldmodel.planners.cem import CEM
from worldmodel.planners.ensemble import EnsemblePlanner
from worldmodel.planners.searches import search_names
from worldmodel.simulators.ensemble import EnsembleSimulator
from worldmodel.simulators.latent import score
from worldmodel.uncertainty.members import member_mlp


class Scalars:
    """Members s' = θ_m s + a with σ = 0.5, all in one dimension."""

    latent_dim = noisy_dims = 1

    def __init__(self, theta: Tensor) -> None:
        self.theta, self.members = theta, len(theta)

    def moments(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.theta[:, None, None] * latent + action
        return mean, torch.full_like(mean, 0.5)


class Reader:
    """Rewards and values of a one-dimensional latent."""

    action_dim, discount = 1, 0.9

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 0].square()

    def value(self, latent: Tensor) -> Tensor:
        return 3 * latent[..., 0]

    def propose(self, latent: Tensor, generator: object) -> Tensor:
        return latent[..., :1]


def returns(theta: Tensor, start: Tensor, actions: Tensor) -> Tensor:
    """Of every member alone, [M B N], by a loop."""
    rows = []
    for one in theta:
        state, total = start[:, None].expand(-1, actions.shape[1], -1), torch.zeros(actions.shape[:2])
        for k in range(actions.shape[2]):
            state = one * state + actions[:, :, k]
            total = total + 0.9**k * state[..., 0].square()
        rows.append(total + 0.9 ** actions.shape[2] * 3 * state[..., 0])
    return torch.stack(rows)


@pytest.mark.parametrize("kappa", [0.0, 1.5, -0.5])
def test_the_score_is_the_mean_over_members_and_kappa_times_their_std(kappa: float) -> None:
    theta, start, actions = torch.tensor([0.5, 1.0, 1.2]), torch.randn(2, 1), torch.randn(2, 4, 5, 1)
    world = EnsembleSimulator(simulator=Reader(), ensemble=Scalars(theta), particles=6, kappa=kappa)
    alone = returns(theta, start, actions)
    expected = alone.mean(0) + kappa * alone.std(0, correction=0)
    torch.testing.assert_close(score(world, world.start(start), actions), expected, rtol=1e-4, atol=1e-4)


def test_the_bonus_is_the_variance_of_the_members_means() -> None:
    theta, start = torch.tensor([0.5, 1.5]), torch.full((1, 1), 2.0)
    plain, curious = (
        EnsembleSimulator(simulator=Reader(), ensemble=Scalars(theta), particles=2, bonus=bonus) for bonus in (0.0, 3.0)
    )
    state, action = plain.start(start), torch.zeros(1, 1)
    more = curious.reward(curious.step(state, action)) - plain.reward(plain.step(state, action))
    torch.testing.assert_close(more, torch.tensor([3.0]))  # members at 1 and 3: variance 1


@pytest.mark.parametrize("resample", [True, False])
def test_the_second_moment_after_h_steps_is_that_of_the_propagation(resample: bool) -> None:
    H, x0 = 4, 1.5
    theta = 1 + 0.3 * torch.randn(200)
    world = EnsembleSimulator(simulator=Reader(), ensemble=Scalars(theta), particles=40_000, resample=resample)
    state = world.start(torch.full((1, 1), x0))
    for _ in range(H):
        state = world.step(state, torch.zeros(1, 1))
    found = state[0, :40_000].square().mean().item()
    kept, fresh = x0**2 * (theta ** (2 * H)).mean().item(), x0**2 * theta.square().mean().item() ** H
    assert found == pytest.approx(fresh if resample else kept, rel=0.02)
    assert kept > 1.1 * fresh  # so that neither passes for the other


def test_a_resampled_particle_goes_on_from_where_it_was() -> None:
    theta = torch.tensor([0.5, 1.1, 1.7])
    world = EnsembleSimulator(simulator=Reader(), ensemble=Scalars(theta), particles=9, resample=True)
    states, factors = [world.start(torch.ones(1, 1))], []
    for _ in range(3):
        states.append(world.step(states[-1], torch.zeros(1, 1)))
        factors.append(states[-1][0, :9] / states[-2][0, :9])
    distance = (torch.stack(factors)[..., None] - theta).abs().min(-1).values
    assert distance.max() < 1e-5 and not torch.equal(factors[0], factors[1])


def test_noise_has_its_member_s_std() -> None:
    world = EnsembleSimulator(simulator=Reader(), ensemble=Scalars(torch.ones(2)), particles=20_000, noisy=True)
    state = world.step(world.start(torch.zeros(1, 1)), torch.zeros(1, 1))
    assert state[0, :20_000].std().item() == pytest.approx(0.5, rel=0.02)


class Regressions:
    """s' = what member m predicts for an action: a regression of rewards."""

    latent_dim = noisy_dims = 1

    def __init__(self, members: int) -> None:
        self.members, self.net = members, member_mlp(members, 2, 32, 2, 1)

    def moments(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.net(torch.cat([action, torch.ones_like(action)], -1))
        return mean, torch.ones_like(mean)

    def fit(self, action: Tensor, reward: Tensor, weight: Tensor) -> None:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-2)
        for _ in range(400):
            optimizer.zero_grad()
            found, _ = self.moments(action, action.expand(self.members, -1, -1))
            (weight * (found[..., 0] - reward).square()).mean().backward()
            optimizer.step()


class Flat(Reader):
    """The reward is the latent."""

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 0]

    def value(self, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent[..., 0])


def test_a_single_model_s_planner_exploits_an_outlier_and_the_ensemble_s_does_not() -> None:
    """Every action's reward is 0, but one record says 3: half of the bootstraps hold it."""
    action = torch.cat([torch.linspace(-1, 1, 41), torch.tensor([0.7])])[:, None]
    reward = torch.zeros(42)
    reward[-1] = 3.0
    weight = torch.ones(6, 42)
    weight[::2, -1] = 0.0
    ensemble, single = Regressions(6), Regressions(1)
    ensemble.fit(action, reward, weight)
    single.fit(action, reward, torch.ones(1, 42))

    def chosen(members: Regressions, kappa: float) -> float:
        world = EnsembleSimulator(simulator=Flat(), ensemble=members, particles=members.members, kappa=kappa)
        planner = CEM(horizon=1, candidates=100, elites=5, iterations=5)
        with torch.no_grad():
            plan = planner.plan(world, world.start(torch.zeros(1, 1)), generator=torch.Generator().manual_seed(0))
        return abs(plan.action.item() - 0.7)

    assert chosen(single, 0.0) < 0.15
    assert chosen(ensemble, -1.5) > 0.15


def test_particles_of_one_member_are_that_member_s_plan() -> None:
    agent = small_agent("ensemble")
    agent.dynamics.change = member_mlp(1, agent.dynamics.latent_dim + 2, 16, 2, 2 * agent.dynamics.latent_dim)
    agent.dynamics.members = 1
    options = {"horizon": 3, "candidates": 16, "elites": 4, "iterations": 2, "policy_candidates": 4}
    torch.nn.init.normal_(agent.reward.net[-1].weight)
    latent = torch.randn(2, 16)
    plans = [
        planner.plan(agent.simulator(), latent, generator=torch.Generator().manual_seed(0))
        for planner in (CEM(**options), EnsemblePlanner(search="cem", particles=1, **options))
    ]
    torch.testing.assert_close(plans[0].action, plans[1].action)
    torch.testing.assert_close(plans[0].value, plans[1].value)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="particles"):
        EnsembleSimulator(simulator=Reader(), ensemble=Scalars(torch.ones(3)), particles=4)
    with pytest.raises(ValueError, match=r"^search: expected one of"):
        EnsemblePlanner(search="oracle", horizon=2)
    for agent in (small_agent("rssm_gaussian"), small_agent("gaussian")):  # the latter has moments, of another kind
        with pytest.raises(TypeError, match="dynamics=ensemble"):
            EnsemblePlanner(horizon=2, candidates=4, elites=2).plan(agent.simulator(), torch.zeros(1, 20))


@pytest.mark.parametrize("search", search_names())
@pytest.mark.parametrize("name", ["ensemble", "laplace", "variational"])
def test_every_search_plans_over_members_wherever_they_are_from(name: str, search: str) -> None:
    agent = small_agent(name)
    agent.losses(random_batch())
    torch.nn.init.normal_(agent.reward.net[-1].weight)
    agent.eval()
    own = {"iterations": 2, "elites": 4}
    terms = {"particles": 6, "resample": True, "noisy": True, "kappa": -0.5, "bonus": 1.0}
    planner = EnsemblePlanner(search=search, horizon=3, candidates=8, policy_candidates=2, **terms, **own)
    latent = torch.randn(2, agent.dynamics.latent_dim)
    plans = [planner.plan(agent.simulator(), latent, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    assert plans[0].action.isfinite().all() and plans[0].action.abs().max() <= 1 and plans[0].value.isfinite().all()
    assert torch.equal(plans[0].action, plans[1].action)


@pytest.mark.parametrize("name", ["laplace", "variational"])
def test_what_draws_of_weights_disagree_on_lowers_a_careful_planner_s_value(name: str) -> None:
    agent = small_agent(name).eval()
    torch.nn.init.normal_(agent.reward.net[-1].weight)
    options = {"horizon": 3, "candidates": 16, "elites": 4, "iterations": 2, "particles": 3}
    values = [
        EnsemblePlanner(kappa=kappa, **options)
        .plan(agent.simulator(), torch.ones(1, agent.dynamics.latent_dim), generator=torch.Generator().manual_seed(0))
        .value.item()
        for kappa in (-2.0, 0.0, 2.0)
    ]
    assert values[0] < values[1] < values[2]
