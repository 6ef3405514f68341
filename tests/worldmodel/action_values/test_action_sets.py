"""Sets of actions: their weights interpolate, and no action between choices is better than all of them."""

import pytest
import torch

from worldmodel.action_values.action_sets import Grid, OneHot, PerDimension
from worldmodel.action_values.discrete_q import BestValue, HuberQ, TwoHotQ

SETS = [
    Grid(action_dim=1, bins=5),
    Grid(action_dim=2, bins=3),
    Grid(action_dim=3, bins=2),
    PerDimension(action_dim=6, bins=5),
    OneHot(action_dim=4),
]


def every_index(actions) -> torch.Tensor:
    return torch.arange(actions.choices)[:, None].expand(-1, actions.groups)


@pytest.mark.parametrize("actions", SETS)
def test_a_choice_is_all_of_itself(actions) -> None:
    index = every_index(actions)
    chosen = actions.action(index)
    assert chosen.abs().amax() <= 1 and len(torch.unique(chosen, dim=0)) == actions.choices
    torch.testing.assert_close(actions.weights(chosen).argmax(-1), index)
    torch.testing.assert_close(actions.weights(chosen).amax(-1), torch.ones(index.shape))


@pytest.mark.parametrize("actions", SETS)
def test_weights_are_shares(actions) -> None:
    A = actions.action(every_index(actions)).shape[-1]
    weights = actions.weights(torch.rand(4, 50, A) * 2.4 - 1.2)
    assert weights.shape == (4, 50, actions.groups, actions.choices) and weights.amin() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("actions", [Grid(action_dim=2, bins=3), PerDimension(action_dim=2, bins=4)])
def test_weights_interpolate(actions) -> None:
    """The mean of the choices' actions is the action itself."""
    action = torch.rand(100, 2) * 2 - 1
    weights = actions.weights(action)
    if actions.groups == 1:
        blend = weights[:, 0] @ actions.action(every_index(actions))
    else:
        blend = weights @ torch.linspace(-1, 1, actions.choices)
    torch.testing.assert_close(blend, action, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [HuberQ, TwoHotQ])
@pytest.mark.parametrize("actions", SETS)
def test_no_action_beats_the_best_choice(kind, actions) -> None:
    q = kind(actions=actions, latent_dim=3, scale=10.0, hidden=8, layers=1)
    torch.nn.init.normal_(q.net[-1].weight)
    latent = torch.randn(20, 3)
    chosen = q.choose(latent)
    best = BestValue(q)(latent)
    torch.testing.assert_close(q.at(latent, chosen), best)
    torch.testing.assert_close(q.of(latent, actions.action(chosen)), best, atol=1e-4, rtol=1e-4)
    for _ in range(20):
        action = torch.rand(20, actions.action(chosen).shape[-1]) * 2 - 1
        assert (q.of(latent, action) <= best + 1e-4).all()


@pytest.mark.parametrize(("kind", "steps"), [(HuberQ, 300), (TwoHotQ, 600)])
def test_values_become_their_targets(kind, steps) -> None:
    q = kind(actions=Grid(action_dim=1, bins=3), latent_dim=2, scale=10.0, hidden=16, layers=1)
    latent = torch.eye(2).repeat_interleave(3, 0)
    action, target = torch.tensor([-1.0, 0.0, 1.0] * 2)[:, None], torch.tensor([3.0, -2.0, 9.0, 1.0, 0.0, -7.0])
    optimiser = torch.optim.Adam(q.parameters(), lr=0.03)
    for _ in range(steps):
        optimiser.zero_grad()
        q.loss(latent, action, target).mean().backward()
        optimiser.step()
    torch.testing.assert_close(q.of(latent, action), target, atol=0.1, rtol=0.02)
    assert q.of(latent[:1], torch.tensor([[0.5]])).item() == pytest.approx(3.5, abs=0.15)


def test_a_grid_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bins: expected at most 4096 actions in a grid, got 5\^6"):
        Grid(action_dim=6, bins=5)
