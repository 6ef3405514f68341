"""Learners of policy and values: who is moved by what, and what the entropy earns."""

import math

import pytest
import torch

from worldmodel.actor_critics.actor_critic import ActorCritic, PolicyValue
from worldmodel.actor_critics.max_q import MaxQ
from worldmodel.actor_critics.soft import Soft
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.heads.scalar import ScalarHead
from worldmodel.policy_spec import PolicySpec

D, A = 3, 2
SPEC = PolicySpec(
    latent_dim=D,
    action_dim=A,
    discount=0.9,
    build_actor=lambda options: SquashedNormalActor(latent_dim=D, action_dim=A, hidden=16, **options),
    build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=10.0, hidden=16),
    return_scale=10.0,
)
KINDS: list[type[MaxQ] | type[Soft]] = [MaxQ, Soft]


def randomised(learner: ActorCritic) -> ActorCritic:
    for head in learner.q.heads:
        torch.nn.init.normal_(head.net[-1].weight, std=0.1)
    learner.slow_q.module.load_state_dict(learner.q.state_dict())
    return learner


@pytest.mark.parametrize("kind", KINDS)
def test_each_loss_moves_its_own_weights(kind) -> None:
    learner, latent = randomised(kind(spec=SPEC)), torch.randn(20, D)
    groups = learner.groups()
    trained = {id(w) for w in learner.parameters() if w.requires_grad}
    assert trained == {id(w) for group in groups.values() for w in group}
    loss, _ = learner.actor_loss(latent, torch.ones(20))
    loss.backward()
    assert all(w.grad is None for w in groups["value"]) and all(w.grad is not None for w in groups["actor"])
    learner.zero_grad()
    learner.q.loss(latent, torch.rand(20, A), torch.randn(20)).mean().backward()
    assert all(w.grad is not None for w in groups["value"]) and all(w.grad is None for w in groups["actor"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_actor_finds_what_q_rates_highest(kind) -> None:
    learner = kind(spec=SPEC)
    best = torch.tensor([0.4, -0.6])

    class Bowl(torch.nn.Module):
        def forward(self, latent, action):
            return -20 * (action - best).square().sum(-1).expand(2, *latent.shape[:-1])

    learner.q = Bowl()
    optimiser = torch.optim.Adam(learner.actor.parameters(), lr=0.01)
    for _ in range(200):
        optimiser.zero_grad()
        learner.actor_loss(torch.randn(64, D), torch.ones(64))[0].backward()
        optimiser.step()
    torch.testing.assert_close(learner.actor.mode(torch.randn(8, D)), best.expand(8, A), atol=0.12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_never_met_teach_the_actor_nothing(kind) -> None:
    learner, latent, weight = randomised(kind(spec=SPEC)), torch.randn(8, D), torch.ones(8)
    weight[5:], latent[5:] = 0, 100.0
    torch.manual_seed(0)
    learner.actor_loss(latent, weight)[0].backward()
    found = [w.grad.clone() for w in learner.actor.parameters()]
    learner.zero_grad()
    latent[5:] = -3.0
    torch.manual_seed(0)
    learner.actor_loss(latent, weight)[0].backward()
    for w, before in zip(learner.actor.parameters(), found, strict=True):
        torch.testing.assert_close(w.grad, before, rtol=5e-2, atol=1e-6)  # but for the spread of values


def test_values_of_the_soft_learner_hold_the_entropy() -> None:
    plain, soft = randomised(MaxQ(spec=SPEC)), Soft(spec=SPEC, temperature=0.5)
    log_prob = torch.tensor([2.0, -3.0])
    assert plain.bonus(log_prob).tolist() == [0.0, 0.0]
    torch.testing.assert_close(soft.bonus(log_prob), torch.tensor([-1.0, 1.5]))
    soft.q.load_state_dict(plain.q.state_dict())
    soft.slow_q.module.load_state_dict(plain.q.state_dict())
    latent = torch.randn(5, D)
    torch.manual_seed(1)
    values = soft.member_values(latent)
    torch.manual_seed(1)
    action, log_prob = soft.actor(latent)
    torch.testing.assert_close(values, plain.q(latent, action) - 0.5 * log_prob)


@pytest.mark.parametrize(("target", "sign"), [(-50.0, -1), (50.0, 1)])
def test_the_temperature_rises_while_the_entropy_is_too_low(target: float, sign: int) -> None:
    soft = Soft(spec=SPEC, target_entropy=target)
    soft.actor_loss(torch.randn(10, D), torch.ones(10))[0].backward()
    assert math.copysign(1, -soft.log_temperature.grad.item()) == sign
    assert Soft(spec=SPEC).target_entropy == -A


def test_members_begin_apart_and_follow_slowly() -> None:
    learner = MaxQ(spec=SPEC, slow_rate=0.25)
    first, second = (head.net[0].weight for head in list(learner.q.heads)[:2])
    assert not torch.equal(first, second)
    before = learner.slow_q.module.heads[0].net[0].weight.clone()
    with torch.no_grad():
        first += 1
    learner.follow()
    torch.testing.assert_close(learner.slow_q.module.heads[0].net[0].weight, before + 0.25)


def test_planners_are_told_the_value_of_the_mode() -> None:
    learner, latent = randomised(MaxQ(spec=SPEC)), torch.randn(7, D)
    mean = learner.q(latent, learner.actor.mode(latent)).mean(0)
    torch.testing.assert_close(PolicyValue(learner.slow_q.module, learner.actor)(latent), mean)
