"""What learns in imagination: it finds the way to a goal, moves the policy alone, and obeys its options."""

import pytest
import torch
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.heads.head import Head
from worldmodel.heads.scalar import ScalarHead
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows
from worldmodel.policies.backprop import BackpropImagination
from worldmodel.policies.backprop_rewards import BackpropRewards
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policies.mixed import MixedGradients
from worldmodel.policies.score_function import ScoreFunction
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator

D = 2
LEARNERS = {
    "backprop": BackpropImagination,
    "backprop_rewards": BackpropRewards,
    "score_function": ScoreFunction,
    "mixed": MixedGradients,
}
every_learner = pytest.mark.parametrize("name", LEARNERS)


class Point(nn.Module):
    """s' = s + gain a / 4, with a little noise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def imagine(self, latent: Tensor, action: Tensor) -> Tensor:
        return latent + 0.25 * self.gain * action + 0.01 * torch.randn_like(latent)

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return latent + 0.25 * self.gain * action


class Nearness(Head):
    """One minus the squared distance to (0.5, -0.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.goal = nn.Sequential(), nn.Parameter(torch.tensor([0.5, -0.5]))

    def read(self, outputs: Tensor) -> Tensor:
        return 1 - (outputs - self.goal).square().sum(-1)

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


class Edge(Head):
    """Goes on left of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential()

    def read(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(-20 * outputs[..., 0])

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


def learner(name: str, **options: object) -> PolicyLearner:
    spec = PolicySpec(
        latent_dim=D,
        action_dim=D,
        discount=0.9,
        build_actor=lambda _: SquashedNormalActor(latent_dim=D, action_dim=D, hidden=16),
        build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=10.0, hidden=16),
    )
    return LEARNERS[name](spec=spec, **{"horizon": 4, "starts": 48, **options})


def world(policy: PolicyLearner, *, mortal: bool = False) -> LatentSimulator:
    value, edge = policy.planning_value, Edge() if mortal else None
    parts = {"dynamics": Point(), "reward": Nearness(), "value": value, "actor": policy.actor, "continuation": edge}
    return LatentSimulator(**parts, action_dim=D, discount=0.9)


def rows(count: int = 64) -> LatentRows:
    flags = torch.zeros(count, 2, dtype=torch.bool)
    batch = Batch({}, torch.zeros(count, 2, D), torch.zeros(count, 2), flags, flags, flags)
    return LatentRows.of(batch, Belief(2 * torch.rand(count, 2, D) - 1, torch.zeros(count, 1), {}))


def train(
    policy: PolicyLearner, simulator: LatentSimulator, updates: int, rate: float = 1e-2
) -> list[dict[str, float]]:
    weights = [weight for group in policy.parameter_groups().values() for weight in group]
    optimizer, history = torch.optim.Adam(weights, lr=rate), []
    for _ in range(updates):
        loss = policy.losses(simulator, rows())
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        policy.follow()
        history.append({key: float(number) for key, number in loss.metrics.items()})
    return history


@every_learner
def test_nothing_is_learned_from_rollouts_that_begin_where_an_episode_ended(name: str) -> None:
    policy, given = learner(name), rows()
    given.belief.latent[..., 0] = 3.0  # goes on with 1e-26
    policy.losses(world(policy, mortal=True), given).total.backward()
    assert sum(weight.grad.abs().sum() for weight in policy.actor.parameters()) < 1e-20


@every_learner
def test_it_finds_the_goal_from_everywhere(name: str) -> None:
    torch.manual_seed(0)
    policy = learner(name)
    simulator = world(policy)
    train(policy, simulator, 150 if name == "score_function" else 70)
    state = 2 * torch.rand(200, D) - 1
    with torch.no_grad():
        for _ in range(10):
            state = simulator.dynamics.predict(state, policy.actor.mode(state))
        distance = (state - torch.tensor([0.5, -0.5])).norm(dim=-1)
    assert distance.mean() < 0.15 and distance.max() < 0.5


@pytest.mark.parametrize(
    "name", [name if name == "backprop_rewards" else pytest.param(name, marks=pytest.mark.slow) for name in LEARNERS]
)
def test_what_ends_is_not_walked_into(name: str) -> None:
    """The goal lies beyond an edge, at which the episode is over: what is left of it earns 0.75 a step, for ever."""
    torch.manual_seed(0)
    policy = learner(name, horizon=6, starts=128)
    simulator = world(policy, mortal=True)
    train(policy, simulator, 250, rate=3e-3)
    state = torch.tensor([[-0.6, 0.3], [-0.3, -0.5]])
    with torch.no_grad():
        for _ in range(8):
            state = simulator.dynamics.predict(state, policy.actor.mode(state))
    assert (state[:, 0] < 0.05).all(), state


@every_learner
def test_the_model_gets_no_gradient_where_it_is_frozen_and_every_weight_of_the_policy_gets_one(name: str) -> None:
    policy = learner(name)
    simulator = world(policy)
    model = [*simulator.dynamics.parameters(), *simulator._reward.parameters()]
    for weight in model:
        weight.requires_grad_(False)
    train(policy, simulator, 2)  # heads start at zero, and pass nothing on at first
    policy.losses(simulator, rows()).total.backward()
    assert all(weight.grad is None for weight in model)
    groups = policy.parameter_groups()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() for group in groups.values() for weight in group
    )
    trained = {id(weight) for group in groups.values() for weight in group}
    assert trained == {id(weight) for weight in policy.parameters() if weight.requires_grad}


def test_the_score_function_asks_nothing_of_the_model_s_derivatives() -> None:
    policy = learner("score_function")
    simulator = world(policy)
    policy.losses(simulator, rows()).total.backward()
    assert all(weight.grad is None for weight in [*simulator.dynamics.parameters(), *simulator._reward.parameters()])


def test_the_mixture_follows_the_variances_and_stays_where_it_is_told_to() -> None:
    torch.manual_seed(0)
    policy = learner("mixed")
    history = train(policy, world(policy), 40)
    assert history[0]["policy/alpha"] == 0.5  # nothing was measured yet
    assert history[-1]["policy/alpha"] > 0.9  # the point is smooth: the pathwise gradient is the better one
    pathwise, score = history[-1]["policy/variance_pathwise"], history[-1]["policy/variance_score"]
    assert score > pathwise > 0
    fixed = learner("mixed", alpha=0.25)
    assert train(fixed, world(fixed), 2)[-1]["policy/alpha"] == 0.25


def test_a_pathwise_gradient_that_is_not_finite_leaves_the_score_function_s() -> None:
    policy = learner("mixed")
    simulator = world(policy)

    class Broken(Point):
        def imagine(self, latent: Tensor, action: Tensor) -> Tensor:
            # finite, but the slope of its root at zero is not
            return super().imagine(latent, action) + 0 * (action * 0).abs().sqrt()

    simulator.dynamics = Broken()
    loss = policy.losses(simulator, rows())
    loss.total.backward()
    assert loss.metrics["policy/alpha"] == 0
    assert all(weight.grad.isfinite().all() for weight in policy.parameter_groups()["actor"])
    assert policy.variances.isfinite().all()


def test_summed_rewards_come_with_the_norms_of_what_flows_back() -> None:
    policy = learner("backprop_rewards", detach_every=3)
    assert policy.planning_value is None and [*policy.parameter_groups()] == ["actor"]
    metrics = train(policy, world(policy), 1)[0]
    norms = [metrics[f"policy/delta_norm_{t}"] for t in range(1, 5)]
    assert all(norm > 0 for norm in norms)
    assert norms[2] < norms[1] < norms[0]  # beyond the third step nothing flows back: two rewards, then one


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("backprop_rewards", {"clip": 0.0}, "clip: expected a finite number above 0"),
        ("backprop_rewards", {"detach_every": 0}, "detach_every: expected a whole number of at least 1"),
        ("score_function", {"mix": 1.5}, "mix: expected a finite number of at least 0 and at most 1"),
        ("mixed", {"alpha": 2.0}, "alpha: expected a finite number of at least 0 and at most 1"),
        ("mixed", {"starts": 1}, "starts: expected a whole number of at least 2"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(name, **options)


class Bent(SquashedNormalActor):
    """The std depends on where the action before has led: entropies of later states are worth something."""

    def __init__(self) -> None:
        super().__init__(latent_dim=1, action_dim=1, hidden=2, layers=1)
        del self.net
        self.mean, self.slope = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.8))

    def moments(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.expand_as(latent), (self.slope * latent - 1).exp()


class Led(nn.Module):
    """s' = a."""

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return action

    imagine = predict


def test_both_estimators_are_of_one_entropy() -> None:
    spec = PolicySpec(
        latent_dim=1,
        action_dim=1,
        discount=0.9,
        build_actor=lambda _: Bent(),
        build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=1.0, hidden=4),
    )
    policy = MixedGradients(spec=spec, horizon=2, entropy=1.0)
    head, weights = ScalarHead(latent_dim=1, scale=1.0, hidden=4), [policy.actor.mean, policy.actor.slope]
    parts = {"dynamics": Led(), "reward": head, "value": None, "actor": policy.actor}
    simulator, start = LatentSimulator(**parts, action_dim=1, discount=0.9), torch.full((200_000, 1), 0.5)
    for objective in (policy._pathwise(simulator, start)[0], policy._score(simulator, start)):
        gradient = torch.stack(torch.autograd.grad(objective, weights))
        # by Gauss-Hermite quadrature and finite differences
        torch.testing.assert_close(gradient, torch.tensor([-0.27825, 0.14900]), atol=0.01, rtol=0)
