"""The actor becomes what CEM decides: the Riccati gain on a linear plant, also where only its own mistakes lead."""

import pytest
import torch
from torch import Tensor

from tests.conftest import small_agent
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.distillation.answers import Answers
from worldmodel.distillation.planner_gaussian import PlannerTarget, sampled_planner_kl
from worldmodel.distributions import gaussian_kl
from worldmodel.heads.head import Head
from worldmodel.heads.scalar import ScalarHead
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows
from worldmodel.planners.cem import CEM
from worldmodel.policies.distil import PlannerDistillation
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator

D, A = 2, 1
SPEC = PolicySpec(
    latent_dim=D,
    action_dim=A,
    discount=0.9,
    build_actor=lambda options: SquashedNormalActor(latent_dim=D, action_dim=A, hidden=32, **options),
    build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=5.0, hidden=32),
)
PLANNER = {"horizon": 1, "candidates": 64, "elites": 8, "iterations": 4}


class Drift:
    """The first number is moved by the action, the second stays."""

    latent_dim = carry_dim = D

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., :1] + 0.5 * action, latent[..., 1:]], -1)

    imagine = observe = losses = predict


class AtZero(Head):
    """Highest where the first number is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential()

    def read(self, outputs: Tensor) -> Tensor:
        return -outputs[..., 0].square()

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


def world(learner: PlannerDistillation) -> LatentSimulator:
    return LatentSimulator(
        dynamics=Drift(), reward=AtZero(), value=None, actor=learner.actor, action_dim=A, discount=SPEC.discount
    )


def rows(seed: int = 0, count: int = 40) -> LatentRows:
    latent = torch.rand(count, 2, D, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    flags = torch.zeros(count, 2, dtype=torch.bool)
    batch = Batch({}, torch.zeros(count, 2, A), torch.zeros(count, 2), flags, flags, flags)
    return LatentRows(batch, Belief(latent, torch.zeros(count, 0), {}))


def test_the_sampled_kl_is_unbiased() -> None:
    mean, std = torch.tensor([0.1, -0.2]).double(), torch.tensor([0.2, 0.3]).double()
    target = PlannerTarget(torch.tensor([0.0, 0.3]).double(), torch.tensor([0.25, 0.15]).double())
    action = mean + std * torch.randn(200_000, 2).double()
    log_prob = torch.distributions.Normal(mean, std).log_prob(action).sum(-1)
    many = PlannerTarget(*(part.expand_as(action) for part in (target.mean, target.std)))
    estimates = sampled_planner_kl(action, log_prob, many)
    exact = gaussian_kl((mean, std), (target.mean, target.std))
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / 200_000**0.5


def test_the_actor_learns_what_the_planner_decides() -> None:
    learner = PlannerDistillation(spec=SPEC, planner=PLANNER, every=2, memory=512, batch=128, horizon=2)
    optimizer = torch.optim.Adam(learner.parameter_groups()["actor"], lr=5e-3)
    for update in range(200):
        optimizer.zero_grad()
        learner.losses(world(learner), rows(update)).total.backward()
        optimizer.step()
    latent = torch.rand(200, D) * 2 - 1
    plan = CEM(**PLANNER).plan(world(learner), latent)
    error = (learner.actor.mode(latent) - plan.action).abs()
    assert error.mean() < 0.1, error.mean()


def test_questions_are_replayed_and_imagined_latents_and_answers_stay_with_them() -> None:
    learner = PlannerDistillation(spec=SPEC, planner=PLANNER, queries=8, memory=12, batch=4, every=3, horizon=2)
    for update in range(4):  # questions at 0 and 3: the second round takes the place of the first's oldest four
        before = learner.answers.latents.clone()
        learner.losses(world(learner), rows(update))
        asked = update % 3 == 0
        assert bool((learner.answers.latents != before).any()) == asked
    assert learner.answers.taken == 16
    replayed = rows(3).starts()
    known = (learner.answers.latents[:, None] == replayed).all(-1).any(1)
    assert known.sum() == 4 and known[8:].all()  # of the round at update 3, whose first four are replayed
    plan = CEM(**PLANNER).plan(world(learner), learner.answers.latents)
    assert (plan.action - learner.answers.means).abs().max() < 0.2
    assert learner.answers.stds.min() >= 0.1 - 1e-7


def test_only_what_was_answered_is_drawn() -> None:
    answers = Answers(size=10, latent_dim=D, action_dim=A)
    for number in range(4):  # 3, 6, 9 and 12 of them
        latent = torch.full((3, D), float(number + 1))
        answers.take(latent, PlannerTarget(10 * latent[:, :A], latent[:, :A]))
        drawn, target = answers.draw(500)
        assert set(drawn[:, 0].tolist()) == {float(n + 1) for n in range(number + 1)}
        assert torch.equal(target.mean, 10 * drawn[:, :A]) and torch.equal(target.std, drawn[:, :A])
    assert (answers.latents[:, 0] == 1).sum() == 1


def test_each_part_trains_its_own_weights() -> None:
    learner = PlannerDistillation(spec=SPEC, planner=PLANNER, horizon=2)
    learner.losses(world(learner), rows()).total.backward()
    groups = learner.parameter_groups()
    assert all(w.grad is not None for group in groups.values() for w in group)
    trained = {id(w) for group in groups.values() for w in group}
    assert all(w.grad is None for w in learner.parameters() if id(w) not in trained)
    before = [w.clone() for w in learner.planning_value.parameters()]
    with torch.no_grad():
        for w in learner.value.parameters():
            w += 1
    learner.follow()
    slow, fast = learner.planning_value.parameters(), learner.value.parameters()
    for now, old, goal in zip(slow, before, fast, strict=True):
        torch.testing.assert_close(now, torch.lerp(old, goal.detach(), 0.05))


@pytest.mark.parametrize("options", [{"every": 0}, {"memory": 8}, {"least_std": 0.0}, {"planner": {"elites": 0}}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="elites" if "planner" in options else next(iter(options))):
        PlannerDistillation(spec=SPEC, **options)


def test_it_is_a_learner_like_any_other() -> None:
    agent = small_agent()
    assert {*PlannerDistillation(spec=SPEC).parameter_groups()} <= {"actor", "value"} <= {*agent.parameter_groups()}
