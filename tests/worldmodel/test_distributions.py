"""Closed forms against torch.distributions and numeric integration."""

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from worldmodel.distributions import (
    balanced_kl,
    categorical_kl,
    gaussian_kl,
    one_hot_mode,
    one_hot_sample,
    squashed_sample,
    straight_through,
    unimix,
)


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


def log_probs(*shape: int, share: float = 0.01) -> torch.Tensor:
    return unimix(5 * torch.randn(*shape, dtype=torch.float64), share)


def test_categorical_kl_equals_the_library() -> None:
    q, p = log_probs(5, 3, 4), log_probs(5, 3, 4)
    expected = kl_divergence(Independent(Categorical(logits=q), 1), Independent(Categorical(logits=p), 1))
    torch.testing.assert_close(categorical_kl((q,), (p,)), expected, atol=1e-10, rtol=1e-10)


def test_balanced_categorical_kl_shares_its_gradient() -> None:
    q, p = log_probs(5, 3, 4).requires_grad_(), log_probs(5, 3, 4).requires_grad_()
    whole = torch.autograd.grad(categorical_kl((q,), (p,)).sum(), [q, p])
    balanced = balanced_kl((q,), (p,), balance=0.8, free_nats=0.0, kl=categorical_kl)
    for one, share, all_ in zip(torch.autograd.grad(balanced.sum(), [q, p]), [0.2, 0.8], whole, strict=True):
        torch.testing.assert_close(one, share * all_)


def test_a_uniform_share_bounds_every_class_and_the_kl() -> None:
    share, K = 0.01, 4
    sure = unimix(torch.tensor([[1e4, 0.0, -1e4, 0.0]], dtype=torch.float64), share)
    torch.testing.assert_close(sure.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert sure.min().item() == pytest.approx(torch.tensor(share / K).log().item())
    assert categorical_kl((sure,), (sure.flip(-1),)).max() < torch.tensor(K / share).log()


def test_straight_through_shows_the_class_and_trains_the_probabilities() -> None:
    logits = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 4, dtype=torch.float64)
    z = straight_through(unimix(logits, 0.01), one_hot_sample(unimix(logits, 0.01)))
    assert set(z.detach().unique().tolist()) == {0.0, 1.0} and torch.equal(z.sum(-1), torch.ones_like(z[..., 0]))
    through = torch.autograd.grad((weight * z).sum(), logits)[0]
    mean = torch.autograd.grad((weight * unimix(logits, 0.01).exp()).sum(), logits)[0]
    torch.testing.assert_close(through, mean)


def test_samples_have_their_probabilities_and_the_mode_the_largest() -> None:
    one = log_probs(1, 4) / 4
    one = one.log_softmax(-1)
    samples = one_hot_sample(one.expand(40_000, 4))
    torch.testing.assert_close(samples.mean(0), one.exp()[0], atol=0.01, rtol=0)
    assert one_hot_mode(one).argmax() == one.argmax()
