"""Several task experts into one policy: Parisotto et al., Actor-Mimic (2016)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distillation.temperature import softened
from worldmodel.distributions import Moments, gaussian_kl


def discrete_loss(
    student: Float[Tensor, "*R K"],
    expert_values: Float[Tensor, "*R K"],
    *,
    temperature: float = 0.01,
    actions: Bool[Tensor, "*R K"] | None = None,
) -> Float[Tensor, "*R"]:
    """-Σ_a π_E(a|s) log π(a|s) with π_E = softmax(Q_E / T), equation 3 with the minus that the loss needs.

    Args:
        student: logits of the student's policy.
        expert_values: Q_E of the expert of each row's task.
        temperature: T of the experts; Rusu et al., Policy Distillation (2016), sharpen with 0.01.
        actions: those that a row's task has, where tasks have different ones; None for all.
    """
    if actions is not None:
        low = torch.finfo(student.dtype).min / 2
        student = student.masked_fill(~actions, low)
        expert_values = expert_values.masked_fill(~actions, low * min(temperature, 1.0))
    expert = softened(expert_values.detach(), temperature)
    return -(expert * student.log_softmax(-1)).sum(-1)


def gaussian_loss(student: Moments, expert: Moments) -> Float[Tensor, "*R"]:
    """KL(π_E || π) of diagonal Gaussians, each a mean and a std [*R A]: the cross-entropy less the expert's entropy."""
    mean, std = expert
    return gaussian_kl((mean.detach(), std.detach()), student)


def feature_loss(
    predicted: Float[Tensor, "*R F"], expert: Float[Tensor, "*R F"], *, weight: float = 0.01
) -> Float[Tensor, "*R"]:
    """β ||f(h) - h_E||²: the student's features h must say what the expert's hidden layer h_E says, equation 5.

    Args:
        predicted: f(h), a linear readout of the student's features.
        expert: h_E.
        weight: β.
    """
    return weight * (predicted - expert.detach()).square().sum(-1)
