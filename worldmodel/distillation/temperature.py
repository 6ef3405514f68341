"""Classes learned from a teacher's softened probabilities: softmax with a temperature T."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


def softened(logits: Float[Tensor, "*R K"], temperature: float) -> Float[Tensor, "*R K"]:
    """exp(z_i / T) / Σ_j exp(z_j / T): uniform as T grows, the best class alone as T vanishes."""
    return (logits / temperature).softmax(-1)


def soft_cross_entropy(
    student: Float[Tensor, "*R K"], target: Float[Tensor, "*R K"], *, temperature: float
) -> Float[Tensor, "*R"]:
    """T² times the cross-entropy -Σ_i p_i log q_i of the student's softened probabilities q.

    T² keeps the size of the gradient, which at a high temperature becomes that of the logits' squared error over K.

    Args:
        student: logits.
        target: probabilities p at this temperature, of a teacher or of several.
        temperature: T, above 0.
    """
    return -(temperature**2) * (target * (student / temperature).log_softmax(-1)).sum(-1)


def distillation_loss(
    student: Float[Tensor, "*R K"],
    teacher: Float[Tensor, "*R K"],
    label: Int64[Tensor, "*R"] | None = None,
    *,
    temperature: float,
    soft_share: float = 0.9,
) -> Float[Tensor, "*R"]:
    """w T² CE(p_teacher, p_student) + (1 - w) CE(label): Hinton et al., Distilling the Knowledge (2015), section 2.

    Args:
        student, teacher: logits; the teacher's teach and are not moved.
        label: the right class, where one is known; without it the soft term is all.
        temperature: T, above 0; below 1 it sharpens, which teachers of action values need.
        soft_share: w in [0, 1].
    """
    soft = soft_cross_entropy(student, softened(teacher.detach(), temperature), temperature=temperature)
    if label is None:
        return soft
    hard = F.cross_entropy(student.flatten(0, -2), label.flatten(), reduction="none").view(label.shape)
    return torch.lerp(hard, soft, soft_share)


def mean_target(logits: Float[Tensor, "M *R K"], *, temperature: float) -> Float[Tensor, "*R K"]:
    """The mean of M teachers' softened probabilities: a class counts if any teacher thinks so."""
    return softened(logits, temperature).mean(0)


def geometric_target(logits: Float[Tensor, "M *R K"], *, temperature: float) -> Float[Tensor, "*R K"]:
    """The normalised geometric mean, Π_m p_m^(1/M), which is the softmax of mean logits: any teacher can veto."""
    return softened(logits.mean(0), temperature)
