"""Dyna-Q over latents: what it is taught in a world that is known."""

import pytest
import torch

from tests.rigs.lookup_world import Chain, LookupSimulator, as_rows, random_steps
from worldmodel.heads.scalar import ScalarHead
from worldmodel.policies.dyna_q import LatentDynaQ
from worldmodel.policy_spec import PolicySpec

CHAIN = Chain()


def spec(latent_dim: int, action_dim: int, *, discrete: bool = False, discount: float = 0.9) -> PolicySpec:
    return PolicySpec(
        latent_dim=latent_dim,
        action_dim=action_dim,
        discount=discount,
        build_actor=lambda options: torch.nn.Identity(),
        build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=1.0, hidden=8),
        return_scale=1.0,
        discrete=discrete,
    )


def table(**options) -> LatentDynaQ:
    """One whose Q is linear in one-hot latents: a table."""
    learner = LatentDynaQ(spec=spec(CHAIN.states, 1), bins=2, **options)
    for q in (learner.q, learner.slow.module):
        q.net = torch.nn.Sequential(torch.nn.Linear(CHAIN.states, q.net[-1].out_features, bias=False))
        torch.nn.init.zeros_(q.net[0].weight)
    return learner


def randomised(learner: LatentDynaQ) -> LatentDynaQ:
    for net in (learner.q.net, learner.slow.module.net):
        torch.nn.init.normal_(net[-1].weight)
    return learner


def test_with_an_exact_model_the_target_is_bellman_s_backup() -> None:
    learner = randomised(table(double=False, first_actions={"uniform": 1.0}, ratio=5.0))
    imagined, weight = learner.imagined(CHAIN.simulator(), CHAIN.transitions())
    assert len(imagined.reward) == 50 and weight.eq(1).all()
    slow = learner.slow.module(torch.eye(CHAIN.states))[:, 0]  # [S, 2]
    best, rows = slow.amax(1), CHAIN.transitions()
    backup = (rows.reward + 0.9 * rows.continues * (rows.next_latent @ best)).view(-1, 2)
    state, right = imagined.latent.argmax(-1), (imagined.action[:, 0] > 0).long()
    torch.testing.assert_close(learner.target(imagined), backup[state, right])
    assert {(s, a) for s, a in zip(state.tolist(), right.tolist(), strict=True)} >= {(0, 0), (4, 1)}


@pytest.mark.parametrize("double", [True, False])
def test_one_imagined_step_of_a_model_that_looks_the_buffer_up_is_the_recorded_one(double: bool) -> None:
    steps = random_steps()
    learner = randomised(LatentDynaQ(spec=spec(5, 2), bins=3, double=double, first_actions={"buffer": 1.0}, hidden=8))
    imagined, _ = learner.imagined(LookupSimulator(steps, discount=0.9), steps)
    origin = torch.cdist(imagined.latent, steps.latent).argmin(-1)
    assert len(set(origin.tolist())) > 5
    torch.testing.assert_close(learner.target(imagined), learner.target(steps)[origin])
    torch.testing.assert_close(imagined.reward, steps.reward[origin])


def test_double_q_learning_values_by_the_slow_what_the_fast_one_chose() -> None:
    learner, steps = randomised(LatentDynaQ(spec=spec(5, 2), bins=3, hidden=8)), random_steps()
    chosen = learner.q(steps.next_latent)[:, 0].argmax(-1)
    after = learner.slow.module(steps.next_latent)[:, 0].gather(-1, chosen[:, None])[:, 0]
    torch.testing.assert_close(learner.target(steps), steps.reward + 0.9 * steps.continues * after)


def test_the_fixed_point_is_that_of_value_iteration() -> None:
    learner, rows = table(slow_rate=0.5), as_rows(CHAIN.transitions())
    optimiser = torch.optim.SGD(learner.parameter_groups()["value"], lr=3.0)
    for _ in range(180):
        optimiser.zero_grad()
        learner.losses(CHAIN.simulator(), rows).total.backward()
        optimiser.step()
        learner.follow()
    torch.testing.assert_close(learner.q(torch.eye(CHAIN.states))[:-1, 0], CHAIN.values(), atol=1e-3, rtol=0)
    assert learner.actor.mode(torch.eye(CHAIN.states)[:-1]).eq(1).all()


def test_branches_end_where_episodes_do() -> None:
    learner = table(rollout=3, first_actions={"uniform": 1.0}, ratio=30.0)
    rows, weight = learner.imagined(CHAIN.simulator(), CHAIN.transitions())
    alive, continues = weight.view(3, -1), rows.continues.view(3, -1)
    assert continues[0].eq(0).any() and alive[0].eq(1).all()
    torch.testing.assert_close(alive[1:], continues[:-1].cumprod(0))


def test_first_actions_come_from_their_sources() -> None:
    steps = CHAIN.transitions()
    buffer = table(first_actions={"buffer": 1.0}, ratio=10.0).imagined(CHAIN.simulator(), steps)[0]
    assert set(map(tuple, torch.cat([buffer.latent, buffer.action], -1).tolist())) <= set(
        map(tuple, torch.cat([steps.latent, steps.action], -1).tolist())
    )
    greedy = table(first_actions={"epsilon_greedy": 1.0}, epsilon=0.0, ratio=10.0).imagined(CHAIN.simulator(), steps)[0]
    assert greedy.action.eq(-1).all()  # equal values: the first choice
    anything = table(first_actions={"uniform": 1.0}, epsilon=0.0, ratio=10.0).imagined(CHAIN.simulator(), steps)[0]
    assert 0.3 < anything.action.gt(0).float().mean() < 0.7


def test_discrete_environments_have_actions_of_their_own() -> None:
    learner = LatentDynaQ(spec=spec(5, 3, discrete=True), hidden=8)
    assert learner.actor.mode(torch.randn(4, 5)).sum(-1).eq(-1).all()  # one 1, two -1
    assert LatentDynaQ(spec=spec(5, 6), hidden=8).q.actions.groups == 6
    assert LatentDynaQ(spec=spec(5, 2), hidden=8).q.actions.choices == 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss: expected one of huber, two_hot, got 'mse'"),
        ({"action_set": "ball"}, "action_set: expected one of auto, grid"),
        ({"first_actions": {"best": 1.0}}, "first_actions: expected shares of buffer.*got best"),
        ({"first_actions": {"buffer": 0.0}}, "first_actions: expected a share above 0"),
        ({"rollout": 0}, "rollout: expected a whole number"),
        ({"bins": 1}, "bins: expected a whole number"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        LatentDynaQ(spec=spec(4, 2), **options)
