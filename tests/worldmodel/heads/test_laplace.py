"""Last-layer Laplace against Bayesian linear regression written out."""

import pytest
import torch

from worldmodel.heads.laplace import BayesianLinear, LaplaceHead


def regression(x: torch.Tensor, y: torch.Tensor, precision: float, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    row = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    covariance = torch.linalg.inv(row.T @ row / noise**2 + precision * torch.eye(row.shape[1], dtype=x.dtype))
    return covariance @ row.T @ y / noise**2, covariance


def test_the_posterior_equals_bayesian_linear_regression_in_any_batches() -> None:
    x, y = torch.randn(60, 4, dtype=torch.float64), torch.randn(60, dtype=torch.float64)
    layer = BayesianLinear(4, precision=2.0, noise=0.3)
    for part in torch.randperm(60).split(13):
        layer.add(x[part], y[part])
    mean, covariance = regression(x, y, 2.0, 0.3)
    torch.testing.assert_close(layer.posterior()[0], mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.posterior()[1], covariance, rtol=0, atol=1e-6)
    layer.forget()
    assert (layer.posterior()[0] == 0).all()
    torch.testing.assert_close(layer.posterior()[1], torch.eye(5, dtype=torch.float64) / 2)


def test_the_posterior_is_laplace_s_mode_and_curvature() -> None:
    """The optimum of -log p(y, w), and the inverse of its Hessian."""
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    layer = BayesianLinear(3, precision=1.5, noise=0.5)
    layer.add(x, y)
    row = torch.cat([x, torch.ones(30, 1, dtype=torch.float64)], 1)

    def energy(w: torch.Tensor) -> torch.Tensor:
        return (row @ w - y).square().sum() / (2 * 0.5**2) + 1.5 * w.square().sum() / 2

    mean, covariance = layer.posterior()
    assert torch.func.grad(energy)(mean).abs().max() < 1e-6
    torch.testing.assert_close(covariance.inverse(), torch.func.hessian(energy)(mean), rtol=1e-6, atol=1e-6)


def test_intervals_of_a_linear_world_cover_what_they_say() -> None:
    covered = []
    for _ in range(300):
        w, x = torch.randn(4, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
        y = x @ w[:3] + w[3] + 0.4 * torch.randn(12, dtype=torch.float64)
        layer = BayesianLinear(3, precision=1.0, noise=0.4)
        layer.add(x[:10], y[:10])
        mean, variance = layer.predict(x[10:])
        covered.append((y[10:] - mean).abs() < 1.645 * (variance + 0.4**2).sqrt())
    assert 0.85 < torch.cat(covered).float().mean() < 0.95


def test_a_head_is_less_sure_away_from_its_data() -> None:
    head = LaplaceHead(latent_dim=2, scale=5.0, hidden=32)
    near, far = torch.randn(100, 2) * 0.2 + torch.tensor([2.0, 0.0]), torch.tensor([[-2.0, 1.0]])
    prior = head.belief(near)[1]
    head.condition(near, torch.full((100,), 3.0))
    mean, std = head.belief(near)
    assert (mean - 3).abs().max() < 0.2 and std.max() < 0.1 * prior.min()
    assert head.belief(far)[1] > 5 * std.max()
    assert (head(near) == 0).all()  # the trained network is as it was


@pytest.mark.parametrize("name", ["precision", "noise"])
def test_impossible_options_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        LaplaceHead(latent_dim=2, scale=1.0, **{name: 0.0})
