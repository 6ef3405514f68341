"""Two-hot codes: the way there and back, the edges, and a head that learns a mean."""

import math

import pytest
import torch

from worldmodel.heads.two_hot import TwoHot, TwoHotHead


def test_a_number_comes_back_from_its_code() -> None:
    code = TwoHot(bins=255, reach=20.0)
    x = torch.cat([torch.randn(5000), torch.expm1(torch.rand(5000) * 19)]) * torch.randn(10_000).sign()
    weights = code.encode(x)
    torch.testing.assert_close(code.decode(weights), x, rtol=1e-5, atol=1e-5)
    assert weights.min() >= 0 and ((weights > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(10_000))


def test_the_edges_hold_and_zero_is_exactly_zero() -> None:
    code = TwoHot(bins=101, reach=3.0)
    edge = math.expm1(3.0)
    x = torch.tensor([-1e9, -edge, 0.0, edge, 1e9])
    back = code.decode(code.encode(x))
    torch.testing.assert_close(back, x.clamp(-edge, edge))
    assert code.encode(x)[-1].argmax() == 100 and code.encode(x)[0].argmax() == 0
    assert back[2] == 0 and (code.decode(torch.randn(1, 1).expand(7, 101).softmax(-1)) == 0).all()
    mirrored = torch.rand(9, 101)
    assert (code.decode(mirrored + mirrored.flip(-1)) == 0).all()


def test_a_head_starts_at_zero_and_learns_the_mean_of_random_targets() -> None:
    head = TwoHotHead(latent_dim=2, scale=2.0, hidden=8, layers=1)
    latent = torch.randn(256, 2)
    assert (head(latent) == 0).all()
    assert head.loss(latent, torch.zeros(256)).mean().item() == pytest.approx(math.log(101), rel=1e-5)
    target = torch.where(torch.arange(256) % 4 == 0, 8.0, 0.0)  # the mean of symlog would decode to 1.2
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(torch.zeros(256, 2), target).mean().backward()
        optimizer.step()
    assert head(torch.zeros(1, 2)).item() == pytest.approx(2.0, rel=0.02)


def test_gradients_are_finite_out_of_reach() -> None:
    head = TwoHotHead(latent_dim=2, scale=1.0, hidden=8)
    head.loss(torch.randn(2, 2), torch.tensor([1e30, -1e30])).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in head.parameters())


@pytest.mark.parametrize("options", [{"bins": 100}, {"bins": 1}, {"reach": 0.0}])
def test_impossible_bins_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TwoHotHead(latent_dim=2, scale=1.0, **options)
