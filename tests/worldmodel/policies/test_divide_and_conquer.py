"""Divide and conquer: one part is its base algorithm; what moves whom, the partition, and what the centre can do."""

import pytest
import torch
from torch import Tensor

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.heads.head import Head
from worldmodel.heads.scalar import ScalarHead
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows
from worldmodel.policies.backprop import BackpropImagination
from worldmodel.policies.divide_and_conquer import DivideAndConquer, Partition
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator

D, A = 4, 2
SPEC = PolicySpec(
    latent_dim=D,
    action_dim=A,
    discount=0.9,
    build_actor=lambda options: SquashedNormalActor(latent_dim=D, action_dim=A, hidden=32),
    build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=5.0, hidden=32),
)


class Reach:
    """A point and its goal, latents (x, y, goal x, goal y)."""

    latent_dim = carry_dim = D

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., :2] + 0.3 * action, latent[..., 2:]], -1)

    imagine = observe = losses = predict


class Nearness(Head):
    """1 at the goal, 0.5 at half a unit from it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential()

    def read(self, outputs: Tensor) -> Tensor:
        return 1 / (1 + 4 * (outputs[..., :2] - outputs[..., 2:]).square().sum(-1))

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


def world() -> LatentSimulator:
    return LatentSimulator(
        dynamics=Reach(), reward=Nearness(), value=None, actor=None, action_dim=A, discount=SPEC.discount
    )


def rows(seed: int, count: int = 30) -> LatentRows:
    """Windows of two rows: points anywhere, goals at one of three places."""
    noise = torch.Generator().manual_seed(seed)
    goals = torch.tensor([[1.5, 0.0], [-1.0, 1.5], [-1.0, -1.5]])
    latent = torch.rand(count, 2, D, generator=noise) * 2 - 1
    latent[..., 2:] = goals[torch.randint(3, (count, 1), generator=noise)]
    flags = torch.zeros(count, 2, dtype=torch.bool)
    batch = Batch({}, torch.zeros(count, 2, A), torch.zeros(count, 2), flags, flags, flags)
    return LatentRows.of(batch, Belief(latent, torch.zeros(count, 1), {}))


def learn(learner: PolicyLearner, updates: int) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.Adam([w for group in learner.parameter_groups().values() for w in group], lr=3e-3)
    totals = []
    for update in range(updates):
        loss = learner.losses(world(), rows(update))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        learner.follow()
        totals.append(loss.total.item())
    return totals


def earned(actor: SquashedNormalActor, latent: Tensor) -> float:
    """Mean reward of ten decisions."""
    total = torch.zeros(len(latent))
    with torch.no_grad():
        for _ in range(10):
            latent = world().step(latent, actor.mode(latent))
            total += world().reward(latent) / 10
    return float(total.mean())


def test_one_part_is_the_base_algorithm_to_the_bit() -> None:
    torch.manual_seed(0)
    base = BackpropImagination(spec=SPEC, starts=16, horizon=4)
    torch.manual_seed(0)
    one = DivideAndConquer(spec=SPEC, starts=16, horizon=4, parts=1)
    assert learn(base, 5) == learn(one, 5)
    for ours, theirs in zip(one.locals[0].state_dict().values(), base.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert one.actor is one.locals[0].actor and "central" not in dict(one.named_children())


def test_agreement_moves_the_local_policy_alone_by_the_formula_s_gradient() -> None:
    learner = DivideAndConquer(spec=SPEC, parts=2)
    torch.nn.init.normal_(learner.locals[0].actor.net[-1].weight, std=0.5)
    own, others = rows(0).starts()[:20], rows(0).starts()[20:50]
    learner._apart(learner.locals[0].actor, own, others).backward()
    assert all(w.grad is None for w in learner.central.parameters())
    assert all(w.grad is None for w in learner.locals[1].parameters())
    (ours, std), (theirs, their_std) = (
        actor.moments(torch.cat([own, others])) for actor in (learner.locals[0].actor, learner.central)
    )
    # d KL(q || p) / d mean q, d std q, and d KL(p || q) / d of the same q
    by_mean = torch.cat([(ours - theirs)[:20] / their_std[:20] ** 2 / 20, (ours - theirs)[20:] / std[20:] ** 2 / 30])
    forward = (std / their_std**2 - 1 / std)[:20] / 20
    reverse = (1 / std - (their_std**2 + (ours - theirs) ** 2) / std**3)[20:] / 30
    expected = torch.autograd.grad(
        [ours, std], [*learner.locals[0].actor.parameters()], [by_mean.detach(), torch.cat([forward, reverse]).detach()]
    )
    for weight, slope in zip(learner.locals[0].actor.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, slope, rtol=1e-4, atol=1e-6)


def test_the_centre_follows_the_local_policies_and_they_return_to_it() -> None:
    learner = DivideAndConquer(spec=SPEC, parts=3, reset_every=4, starts=12, horizon=3)
    first = learner.locals[2].actor.parameters()
    assert all(torch.equal(w, c) for w, c in zip(first, learner.central.parameters(), strict=True))
    learn(learner, 3)
    assert not torch.equal(learner.locals[0].actor.net[0].weight, learner.locals[1].actor.net[0].weight)
    learn(learner, 1)
    for local in learner.locals:
        assert torch.equal(local.actor.net[0].weight, learner.central.net[0].weight)


def test_the_partition_finds_three_heaps_and_no_part_is_ever_without_rows() -> None:
    partition, goals = Partition(3, D), []
    for update in range(5):
        latent = rows(update).starts()
        heaps = latent.clone()
        heaps[:, :2] *= 0.1
        partition.follow(heaps)
    labels = partition.nearest(heaps)
    for part in range(3):
        goals.append(heaps[labels == part, 2:].unique(dim=0))
    assert [len(found) for found in goals] == [1, 1, 1]
    valid = torch.zeros(5, 2, dtype=torch.bool)
    valid[3] = True
    belongs = partition.members(heaps[:10].view(5, 2, D), valid)
    assert belongs.flatten(1).any(1).all() and not belongs[:, ~valid].any()


@pytest.mark.slow
def test_the_centre_does_what_specialists_do_where_each_has_a_goal_of_its_own() -> None:
    torch.manual_seed(0)
    learner = DivideAndConquer(spec=SPEC, parts=3, reset_every=50, horizon=5, starts=48)
    learn(learner, 120)
    latent = rows(1000, 100).starts()
    labels = learner.partition.nearest(latent)
    specialists = [earned(learner.locals[part].actor, latent[labels == part]) for part in range(3)]
    central = [earned(learner.central, latent[labels == part]) for part in range(3)]
    assert min(specialists) > 0.5
    assert sum(central) > 0.95 * sum(specialists)
