"""Closed forms against torch.distributions and numeric integration."""

import torch
from torch.distributions import Independent, Normal, kl_divergence

from worldmodel.distributions import balanced_kl, gaussian_kl, squashed_sample


def moments(*shape: int, requires_grad: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = torch.randn(*shape, dtype=torch.float64), torch.rand(*shape, dtype=torch.float64) + 0.1
    return mean.requires_grad_(requires_grad), std.requires_grad_(requires_grad)


def test_gaussian_kl_equals_the_library() -> None:
    q, p = moments(5, 3), moments(5, 3)
    expected = kl_divergence(Independent(Normal(*q), 1), Independent(Normal(*p), 1))
    torch.testing.assert_close(gaussian_kl(q, p), expected, atol=1e-10, rtol=1e-10)


def test_balanced_kl_shares_its_gradient() -> None:
    q, p = moments(4, 3, requires_grad=True), moments(4, 3, requires_grad=True)
    whole = torch.autograd.grad(gaussian_kl(q, p).sum(), [*q, *p])
    shared = torch.autograd.grad(balanced_kl(q, p, balance=0.8, free_nats=0.0).sum(), [*q, *p])
    for one, share, all_ in zip(shared, [0.2, 0.2, 0.8, 0.8], whole, strict=True):
        torch.testing.assert_close(one, share * all_)


def test_free_nats_stop_the_gradient_below_the_floor_only() -> None:
    q, p = moments(6, 3, requires_grad=True), moments(6, 3, requires_grad=True)
    floor = float(gaussian_kl(q, p).detach().sort().values[2:4].mean())
    gradient = torch.autograd.grad(balanced_kl(q, p, balance=0.8, free_nats=floor).sum(), q[0])[0]
    below = gaussian_kl(q, p) < floor
    assert below.any() and not below.all()
    assert torch.equal(gradient[below], torch.zeros_like(gradient[below])) and gradient[~below].abs().min() > 0


def test_squashed_density_integrates_to_one() -> None:
    mean, std = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)
    noise = torch.linspace(-9, 9, 200_001, dtype=torch.float64)[:, None]
    action, log_density = squashed_sample(mean, std, noise)
    assert abs(torch.trapezoid(log_density.exp(), action.squeeze(-1)).item() - 1) < 1e-4


def test_squashed_density_is_finite_far_out() -> None:
    _, log_density = squashed_sample(torch.tensor([[30.0]]), torch.tensor([[1.0]]), torch.tensor([[5.0]]))
    assert log_density.isfinite().all()
