"""Limits of the temperature, and identities of cross-entropies, in float64."""

import pytest
import torch

from worldmodel.distillation.temperature import (
    distillation_loss,
    geometric_target,
    mean_target,
    soft_cross_entropy,
    softened,
)

R, K = 5, 7


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(R, K, dtype=torch.float64), torch.randn(R, K, dtype=torch.float64)


def test_a_high_temperature_is_uniform_and_a_low_one_the_best_class(logits) -> None:
    z = logits[0]
    torch.testing.assert_close(softened(z, 1e9), torch.full_like(z, 1 / K), rtol=0, atol=1e-8)
    best = torch.nn.functional.one_hot(z.argmax(-1), K).double()
    torch.testing.assert_close(softened(z, 1e-4), best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_cross_entropy_less_entropy_is_kl(logits, temperature) -> None:
    student, teacher = logits
    p, q = softened(teacher, temperature), softened(student, temperature)
    entropy = -(p * p.log()).sum(-1)
    kl = (p * (p.log() - q.log())).sum(-1)
    cross = soft_cross_entropy(student, p, temperature=temperature) / temperature**2
    torch.testing.assert_close(cross - entropy, kl, rtol=0, atol=1e-12)


def test_at_a_high_temperature_the_gradient_is_the_difference_of_logits(logits) -> None:
    student, teacher = (z - z.mean(-1, keepdim=True) for z in logits)
    student = student.requires_grad_()
    temperature = 100 * max(student.abs().max().item(), teacher.abs().max().item())
    (gradient,) = torch.autograd.grad(distillation_loss(student, teacher, temperature=temperature).sum(), student)
    expected = (student.detach() - teacher) / K
    assert (gradient - expected).abs().max() <= 0.01 * expected.abs().max()


def test_labels_take_the_share_that_the_teacher_leaves(logits) -> None:
    student, teacher = logits
    label = torch.randint(K, (R,))
    hard = -student.log_softmax(-1)[torch.arange(R), label]
    soft = distillation_loss(student, teacher, temperature=2.0)
    mixed = distillation_loss(student, teacher, label, temperature=2.0, soft_share=0.3)
    torch.testing.assert_close(mixed, 0.3 * soft + 0.7 * hard)


def test_means_of_teachers(logits) -> None:
    both = torch.stack(logits)
    p = softened(both, 2.0)
    torch.testing.assert_close(mean_target(both, temperature=2.0), (p[0] + p[1]) / 2)
    root = (p[0] * p[1]).sqrt()
    torch.testing.assert_close(geometric_target(both, temperature=2.0), root / root.sum(-1, keepdim=True))


def test_the_geometric_mean_is_nearest_to_all_teachers_and_the_mean_has_all_near(logits) -> None:
    """They minimise Σ KL(q || p_m) and Σ KL(p_m || q)."""
    both = torch.stack(logits)
    p = softened(both, 1.0)

    def total(q: torch.Tensor, *, reverse: bool) -> torch.Tensor:
        return ((q * (q.log() - p.log())) if reverse else (p * (p.log() - q.log()))).sum((0, -1))

    geometric, mean = geometric_target(both, temperature=1.0), mean_target(both, temperature=1.0)
    for _ in range(20):
        other = softened(torch.randn(R, K, dtype=torch.float64), 1.0)
        near_geometric, near_mean = torch.lerp(geometric, other, 0.05), torch.lerp(mean, other, 0.05)
        assert (total(geometric, reverse=True) < total(near_geometric, reverse=True)).all()
        assert (total(mean, reverse=False) < total(near_mean, reverse=False)).all()
