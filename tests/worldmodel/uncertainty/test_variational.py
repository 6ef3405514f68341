"""Mean-field weights: their moments, their KL, and the exact posterior where the mean field can hold it."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from worldmodel.uncertainty.members import member_noise
from worldmodel.uncertainty.variational import VariationalLinear


def test_outputs_have_the_moments_of_sampled_weights() -> None:
    layer = VariationalLinear(3, 2)
    torch.nn.init.constant_(layer.raw, -1.0)
    x = torch.randn(3)
    weights = layer.mean + layer.std * torch.randn(40_000, 2, 4)
    outputs = (weights * torch.cat([x, torch.ones(1)])).sum(-1)
    drawn = layer(x.expand(40_000, 3))
    mean, std = layer.moments(x)
    for sample in (outputs, drawn):
        torch.testing.assert_close(sample.mean(0), mean, rtol=0, atol=0.02)
        torch.testing.assert_close(sample.std(0), std, rtol=0.02, atol=0)


def test_members_of_a_layer_have_its_moments() -> None:
    layer = VariationalLinear(3, 2)
    torch.nn.init.constant_(layer.raw, -1.0)
    x = torch.randn(5, 3)
    outputs = layer.drawn(x.expand(4000, -1, -1), member_noise(4000, 4, 2))
    mean, std = layer.moments(x)
    torch.testing.assert_close(outputs.mean(0), mean, rtol=0, atol=1e-4)  # noise is balanced
    torch.testing.assert_close(outputs.std(0), std, rtol=0.05, atol=0)


def test_noise_of_few_members_has_the_spread_of_many() -> None:
    noise = member_noise(3, 20_000)
    assert noise.mean(0).abs().max() < 1e-5
    assert noise.var(0, correction=0).mean().item() == pytest.approx(1.0, rel=0.02)
    assert torch.equal(noise, member_noise(3, 20_000)) and not torch.equal(noise, member_noise(3, 20_000, seed=1))
    assert (member_noise(1, 5) == 0).all()


def test_the_kl_equals_the_library() -> None:
    layer = VariationalLinear(3, 2, prior_std=0.7)
    expected = kl_divergence(Normal(layer.mean, layer.std), Normal(0.0, 0.7)).sum()
    torch.testing.assert_close(layer.kl(), expected)


def test_training_finds_the_exact_posterior_of_a_linear_world() -> None:
    """Orthogonal inputs, whose posterior has independent weights."""
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(3, 1)
    noise, y = 0.5, x @ torch.tensor([0.8, -0.4]) + 0.3
    layer = VariationalLinear(2, 1)
    torch.nn.init.constant_(layer.raw, -2.0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(600):
        mean, std = layer.moments(x)
        misfit = ((y - mean[:, 0]).square() + std[:, 0].square()).sum() / (2 * noise**2)  # E_q -log p(y | x, w)
        optimizer.zero_grad()
        (misfit + layer.kl()).backward()
        optimizer.step()
    variance = 1 / (12 / noise**2 + 1)
    exact = Normal(variance / noise**2 * 12 * torch.tensor([[0.8, -0.4, 0.3]]), variance**0.5)
    assert kl_divergence(Normal(layer.mean, layer.std), exact).sum() < 0.01
