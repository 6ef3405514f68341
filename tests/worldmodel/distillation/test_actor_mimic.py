"""The student that is its teacher has nothing to learn."""

import torch

from worldmodel.distillation.actor_mimic import discrete_loss, feature_loss, gaussian_loss

R, K, A = 6, 5, 3


def test_the_discrete_loss_is_least_at_the_expert_s_policy() -> None:
    values = torch.randn(R, K, dtype=torch.float64)
    student = (values / 0.3).requires_grad_()
    loss = discrete_loss(student, values, temperature=0.3)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert gradient.abs().max() < 1e-12
    for _ in range(20):
        assert (discrete_loss(student.detach() + torch.randn(R, K).double(), values, temperature=0.3) > loss).all()


def test_actions_that_a_task_lacks_are_neither_imitated_nor_chosen() -> None:
    values, student = torch.randn(R, K).double(), torch.randn(R, K).double().requires_grad_()
    has = torch.rand(R, K) < 0.6
    has[:, 0] = True
    loss = discrete_loss(student, values, temperature=0.01, actions=has)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss.isfinite().all() and not gradient[~has].any()
    for row in range(R):
        alone = discrete_loss(student[row, has[row]], values[row, has[row]], temperature=0.01)
        torch.testing.assert_close(loss[row], alone)


def test_the_gaussian_loss_is_least_at_the_expert_s_policy() -> None:
    mean, std = torch.randn(R, A).double(), torch.rand(R, A).double() + 0.1
    student = (mean.clone().requires_grad_(), std.clone().requires_grad_())
    loss = gaussian_loss(student, (mean, std))
    gradients = torch.autograd.grad(loss.sum(), student)
    assert loss.abs().max() < 1e-12 and max(g.abs().max() for g in gradients) < 1e-12
    moved = gaussian_loss((mean + 0.1, std * 1.2), (mean, std))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(mean + 0.1, std * 1.2)).sum(-1)
    torch.testing.assert_close(moved, expected)


def test_features_teach_the_student_alone() -> None:
    predicted, expert = torch.randn(R, 4, requires_grad=True), torch.randn(R, 4, requires_grad=True)
    loss = feature_loss(predicted, expert, weight=0.5)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), 0.5 * ((predicted - expert) ** 2).sum(-1).detach())
    torch.testing.assert_close(predicted.grad, (predicted - expert).detach())
    assert expert.grad is None
