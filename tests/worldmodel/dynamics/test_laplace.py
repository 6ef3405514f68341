"""Draws of a prior's last layer: their mean is the model, their variance the closed posterior."""

import pytest
import torch

from tests.conftest import A, random_batch, small_agent, small_dynamics, window
from worldmodel.dynamics.laplace import LaplaceDynamics
from worldmodel.dynamics.prior_steps import FILTERS, prior_step

E = 10


def conditioned(name: str, members: int = 400) -> LaplaceDynamics:
    model = LaplaceDynamics(embed_dim=E, action_dim=A, filter={"name": name, "hidden": 16}, members=members)
    embed, action, is_first = torch.randn(4, 8, E), torch.randn(4, 8, A), torch.zeros(4, 8, dtype=torch.bool)
    belief = model.observe(embed, action, is_first, torch.zeros(4, model.carry_dim), sample=True)
    model.losses(belief, window(action, is_first))
    return model


@pytest.mark.parametrize("name", FILTERS)
def test_members_have_the_model_s_mean_and_the_posterior_s_variance(name: str) -> None:
    model = conditioned(name)
    latent, action = torch.randn(6, model.latent_dim), torch.randn(6, A)
    with torch.no_grad():
        mean, std = model.of_all(latent, action)
        torch.testing.assert_close(mean.mean(0), model.filter.predict(latent, action), rtol=0, atol=1e-4)
        torch.testing.assert_close(model.predict(latent, action), model.filter.predict(latent, action))
        step, features, _ = model._read(latent, action)
        expected = model.posterior.epistemic(features).float()
        Z = model.noisy_dims
        found = mean.var(0, correction=0)
        assert found[..., -Z:].sum() == pytest.approx(expected.sum().item(), rel=0.05)
        assert (found[..., :-Z] < 1e-10).all() and (std[..., :-Z] == 0).all()  # what a step is sure of
        torch.testing.assert_close(std[0, ..., -Z:], model.filter.ahead(latent, action)[1][1])
        torch.testing.assert_close(step.inputs, prior_step(model.filter, latent, action).inputs)


def test_more_data_removes_disagreement_and_leaves_entropy() -> None:
    model = conditioned("rssm_gaussian", members=5)
    latent, action, found = torch.randn(20, model.latent_dim), torch.randn(20, A), []
    for rows in (10_000, 1_000_000):
        model.count_rows(rows)
        model.drawn = model.posterior.draws(model.noise)
        numbers = model.disagreement(latent, action), model.entropy(latent, action)
        found.append([number.mean().item() for number in numbers])
    assert found[0][0] > 20 * found[1][0] and found[0][1] == found[1][1]


def test_the_posterior_is_read_off_in_training_only_and_is_saved() -> None:
    agent, batch = small_agent("laplace"), random_batch()
    agent.losses(batch)
    seen = agent.dynamics.posterior.seen.item()
    assert seen == batch.reward[:, 1:].numel()
    agent.eval().losses(batch)
    assert agent.dynamics.posterior.seen.item() == seen
    again = small_agent("laplace")
    again.load_state_dict(agent.state_dict())
    latent, action = torch.randn(3, 5, agent.dynamics.latent_dim), torch.randn(3, 5, A)
    assert torch.equal(again.dynamics.moments(latent, action)[0], agent.dynamics.moments(latent, action)[0])


def test_rows_across_an_episode_s_start_are_left_out() -> None:
    model = small_dynamics("laplace", E)
    embed, action, is_first = torch.randn(2, 6, E), torch.randn(2, 6, A), torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 3] = True
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=True)
    model.losses(belief, window(action, is_first))
    assert model.posterior.seen.item() == 2 * 4


def test_disagreement_finds_the_gap_in_the_data_and_entropy_the_noise() -> None:
    """s' = sin 6s + noise, louder on the right; no data in the middle."""
    options = {"name": "gaussian", "latent_dim": 1, "hidden": 32, "min_std": 0.01}
    model = LaplaceDynamics(embed_dim=1, action_dim=1, filter=options, members=20)
    x = torch.cat([torch.linspace(-1.5, -1, 200), torch.linspace(1, 1.5, 200)])[:, None]
    y = torch.sin(6 * x) + torch.where(x > 0, 0.3, 0.05) * torch.randn_like(x)
    still = torch.ones_like(x)
    optimizer = torch.optim.Adam(model.filter.change.parameters(), lr=5e-3)
    for _ in range(400):
        mean, std = model.filter.prior(x, still)
        optimizer.zero_grad()
        (0.5 * ((y - mean) / std).square() + std.log()).mean().backward()
        optimizer.step()
    flags = torch.zeros(400, 2, dtype=torch.bool)
    blank, ones = torch.zeros(400, model.carry_dim), torch.ones(400, 2, 1)
    belief = model.observe(torch.zeros_like(ones), ones, flags, blank, sample=True)
    pairs = type(belief)(torch.stack([x, y], 1), belief.carry, belief.statistics)
    model.losses(pairs, window(ones, flags))
    gap = torch.linspace(-0.4, 0.4, 50)[:, None]
    spread = [model.disagreement(z, torch.ones_like(z)).sqrt().mean() for z in (gap, x)]
    assert spread[0] > 2 * spread[1]
    left, right = (model.entropy(z, torch.ones_like(z)).mean() for z in (x[:200], x[200:]))
    assert right > left + 1  # the truth is log 6 = 1.8


@pytest.mark.parametrize("wrong", [{"precision": 0.0}, {"rate": -1.0}, {"members": 0}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: expected"):
        LaplaceDynamics(embed_dim=E, action_dim=A, filter={"name": "gaussian"}, **wrong)


def test_a_prior_without_a_gaussian_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^filter\.name: expected one of gaussian, rssm_gaussian"):
        LaplaceDynamics(embed_dim=E, action_dim=A, filter={"name": "rssm_categorical"})
