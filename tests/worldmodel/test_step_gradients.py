"""What flows back through imagined steps: its size on a linear system, its bounds, and where it stops."""

import math

import pytest
import torch
from torch import Tensor

from tests.worldmodel.policies.linear_plants import QuadraticReward, double
from tests.worldmodel.test_policy_gradients import GAMMA, Linear, Sampled
from worldmodel.imagination import imagine
from worldmodel.policy_gradients import StepGradients
from worldmodel.simulators.latent import LatentSimulator

N, H = 2, 40


def rollout(steps: StepGradients, radius: float, *, horizon: int = H) -> tuple[Tensor, Linear]:
    """Rewards [H R] of a plant whose spectral radius is that one."""
    F = radius * torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)  # a rotation, shrunk or grown
    policy = Linear(std=0.0)
    policy.gain.data = torch.zeros(2, N, dtype=torch.float64)
    simulator = LatentSimulator(
        dynamics=Sampled(F, torch.eye(N, dtype=torch.float64)),
        reward=QuadraticReward(torch.eye(N, dtype=torch.float64)),
        value=None,
        actor=None,
        action_dim=2,
        discount=1.0,
    )
    start = double(5, N, seed=0).requires_grad_()
    return imagine(simulator, policy, start, horizon=horizon, passed_on=steps.passed_on).rewards, policy


def norms(steps: StepGradients) -> Tensor:
    return torch.stack([*steps.report().values()])


@pytest.mark.parametrize("radius", [0.8, 1.0, 1.25])
def test_the_norm_s_slope_over_steps_is_the_log_of_the_spectral_radius(radius: float) -> None:
    steps = StepGradients(H)
    rewards, _ = rollout(steps, radius)
    assert norms(steps).isnan().all()  # nothing has flowed back yet
    rewards[-1].mean().backward()
    found = norms(steps).double().log()
    distance = torch.arange(H - 1, -1, -1, dtype=torch.float64)
    slope = ((distance - distance.mean()) * (found - found.mean())).sum() / (distance - distance.mean()).square().sum()
    assert slope.item() == pytest.approx(math.log(radius), abs=1e-6)


def test_rewards_count_in_their_own_time() -> None:
    steps = StepGradients(3, discount=GAMMA)
    rewards, _ = rollout(steps, 1.0, horizon=3)
    (GAMMA ** torch.arange(3)[:, None] * rewards).sum(0).mean().backward()
    # states keep their norm r, and δ_t = -Σ_k γ^k x_t
    size = double(5, N, seed=0).norm(dim=-1).mean()
    expected = [size * sum(GAMMA**k for k in range(left)) for left in (3, 2, 1)]
    torch.testing.assert_close(norms(steps).double(), torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_what_flows_back_is_bounded() -> None:
    steps = StepGradients(H, clip=0.5)
    rewards, policy = rollout(steps, 1.25)
    rewards[-1].mean().backward()
    assert norms(steps)[-1] > 0.5  # as it arrived
    assert (norms(steps)[:-1] <= 0.5 * 1.25 * (1 + 1e-5)).all()  # one step after it was bounded
    assert policy.gain.grad.isfinite().all()


def test_nothing_flows_back_beyond_a_detached_state() -> None:
    steps = StepGradients(6, detach_every=2)
    rewards, _ = rollout(steps, 1.0, horizon=6)
    rewards[-1].mean().backward()
    found = norms(steps)
    assert (found[4:] > 0).all() and (found[:4].isnan() | (found[:4] == 0)).all()
