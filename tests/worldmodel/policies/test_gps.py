"""Guided policy search where Riccati knows the answer, and where no policy can follow its controllers."""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor

from tests.worldmodel.policies import linear_plants as plants
from worldmodel.policies.gps import GuidedPolicySearch
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policies.mdgps import MirrorDescentGPS
from worldmodel.simulators.latent import LatentSimulator

SIZES = {"samples": 3, "updates": 5, "temperature": 0.05}


def learn(
    learner: PolicyLearner, world: LatentSimulator, latents: Tensor, *, iterations: int
) -> list[dict[str, float]]:
    """A report of every iteration."""
    learner.double().to_action = lambda control: control
    optimizer = torch.optim.Adam(learner.parameter_groups()["actor"])
    rows = plants.rows_of(latents, world.dynamics, world.action_dim)
    updates, reports = 5 * iterations, []
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - update / updates)
        loss = learner.losses(world, rows)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        if update % 5 == 0:
            reports.append({name: float(number) for name, number in loss.metrics.items()})
    return reports


@pytest.mark.parametrize("kind", [GuidedPolicySearch, MirrorDescentGPS])
def test_a_linear_policy_on_a_linear_plant_becomes_riccati_s_and_every_step_is_bounded(kind: type) -> None:
    F, G = 0.5 * plants.double(3, 3, seed=0), plants.double(3, 2, seed=10)
    world = plants.world(F, G, torch.eye(3, dtype=torch.float64))
    learner = kind(spec=plants.policy_spec(), horizon=10, segment=4, controllers=4, control_cost=plants.EFFORT, **SIZES)
    reports = learn(learner, world, plants.double(64, 3, seed=2), iterations=40)
    P = torch.from_numpy(solve_discrete_are(F.numpy(), G.numpy(), np.eye(3), plants.EFFORT * np.eye(2)))
    gain = -torch.linalg.solve(plants.EFFORT * torch.eye(2) + G.mT @ P @ G, G.mT @ P @ F)
    torch.testing.assert_close(learner.actor.net.weight.data, gain, rtol=0, atol=1e-2)
    assert learner.actor.net.bias.abs().max() < 1e-2
    steps = [report["policy/kl_step"] for report in reports]
    assert max(steps) <= 1.1 * learner.limit and steps[0] > 0.9 * learner.limit


class HiddenContext(plants.Plant):
    """x' = F x + (1 + 0.8 c) G u with c = ±1 part of the latent: a linear policy of x cannot do right by both."""

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        x, c = latent[..., :2], latent[..., 2:]
        return torch.cat([x @ self.F.mT + (1 + 0.8 * c) * (action @ self.G.mT), c], -1)


def hidden_context() -> tuple[LatentSimulator, Tensor]:
    """The plant and latents to start from, half of each context."""
    F, G = torch.tensor([[1.1, 0.2], [0.0, 1.1]]).double(), torch.tensor([[0.0], [1.0]]).double()
    world = plants.world(F, G, torch.diag(torch.tensor([1.0, 1.0, 0.0])).double())
    world.dynamics = HiddenContext(F, G)
    starts = plants.double(32, 3, seed=3)
    starts[:, 2] = torch.tensor([1.0, -1.0]).repeat(16)
    return world, starts


def searched(**options: float) -> tuple[GuidedPolicySearch, list[dict[str, float]]]:
    """A search with the same controllers from first to last, and its reports."""
    torch.manual_seed(0)
    world, starts = hidden_context()
    sizes = {"horizon": 12, "segment": 12, "controllers": 8, "control_cost": 0.1, "iterations": 10**6, **SIZES}
    learner = GuidedPolicySearch(spec=plants.policy_spec(3, 1, seen=2), **{**sizes, **options})
    return learner, learn(learner, world, starts, iterations=30)


def cost_of(learner: GuidedPolicySearch) -> float:
    """What the policy's mean costs over a controller's horizon, mean over the starts."""
    world, state = hidden_context()
    total = torch.zeros(len(state), dtype=torch.float64)
    for _ in range(learner.horizon):
        action = learner.actor.mode(state)
        state = world.dynamics.predict(state, action)
        total += 0.05 * action.square().sum(-1) - world.reward(state)
    return float(total.detach().mean())


def test_controllers_that_readapt_are_nearer_to_what_the_policy_can_do_the_more_agreement_is_worth() -> None:
    """Algorithm 30, line 4; without it, learning by demonstration, the policy is the worse for it."""
    found = [searched(agreement=agreement, agreement_kl=0.0) for agreement in (0.0, 0.05, 0.5)]
    away = [reports[-1]["policy/kl_global"] for _, reports in found]
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(away)), away
    assert cost_of(found[1][0]) < 0.95 * cost_of(found[0][0])


def test_a_price_that_doubles_brings_controllers_and_policy_together() -> None:
    _, reports = searched(agreement=0.2, agreement_kl=1e-3)
    away = [report["policy/kl_global"] for report in reports]
    top = int(np.argmax(away))
    assert away[top] > 0.1 and away[-1] < 0.02
    falling = away[top : top + 6]
    assert all(later < earlier for earlier, later in itertools.pairwise(falling)), falling
    prices = [report["policy/lambda"] for report in reports]
    assert prices[0] == pytest.approx(0.2) and 1 < max(prices) <= 30 * 0.2 + 1e-9


def test_a_step_that_its_trajectories_refute_is_taken_back_and_the_next_are_smaller(monkeypatch) -> None:
    world, starts = hidden_context()
    learner = GuidedPolicySearch(spec=plants.policy_spec(3, 1, seen=2), horizon=6, segment=6, controllers=4, **SIZES)
    learn(learner, world, starts, iterations=1)
    before = learner.controllers.policy
    monkeypatch.setattr(
        "worldmodel.policies.gps.surely_worse", lambda *_, **__: torch.tensor([True, False, True, True])
    )
    learner.losses(world, plants.rows_of(starts, world.dynamics, 1))
    after = learner.controllers.policy
    assert [torch.equal(after.K[b], before.K[b]) for b in range(4)] == [True, False, True, True]
    assert learner.controllers.step.tolist() == [0.5, 1.0, 0.5, 0.5]
