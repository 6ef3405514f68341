"""The greedy policy of a table of values."""

import pytest
import torch

from worldmodel.action_values.action_sets import Grid, OneHot, PerDimension
from worldmodel.action_values.discrete_q import HuberQ
from worldmodel.actors.greedy_q import GreedyQActor
from worldmodel.interfaces import Policy

SETS = [Grid(action_dim=2, bins=3), PerDimension(action_dim=2, bins=5), OneHot(action_dim=2)]


def actor_of(actions, epsilon=0.1) -> GreedyQActor:
    q = HuberQ(actions=actions, latent_dim=4, scale=1.0, hidden=8)
    torch.nn.init.normal_(q.net[-1].weight)
    return GreedyQActor(q=q, epsilon=epsilon)


@pytest.mark.parametrize("actions", SETS)
def test_actions_are_finite_and_within_bounds_whatever_the_latent(actions) -> None:
    actor = actor_of(actions)
    assert isinstance(actor, Policy)
    latent = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e38, 0.0])[torch.randint(5, (10_000, 4))]
    generator = torch.Generator().manual_seed(0)
    for action in (actor.mode(latent), actor.sample(latent, generator=generator)):
        assert action.isfinite().all() and action.abs().amax() <= 1 and action.shape == (10_000, 2)


@pytest.mark.parametrize("actions", SETS)
def test_a_share_epsilon_of_choices_is_uniform(actions) -> None:
    actor = actor_of(actions, epsilon=0.3)
    latent = torch.randn(1, 4).expand(20_000, -1)
    sampled, best = actor.sample(latent, generator=torch.Generator().manual_seed(1)), actor.mode(latent)
    same = (sampled == best).float().mean(0) if actions.groups > 1 else (sampled == best).all(-1).float().mean()
    torch.testing.assert_close(same, torch.full_like(same, 0.7 + 0.3 / actions.choices), atol=0.02, rtol=0)
