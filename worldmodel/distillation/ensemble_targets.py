"""One soft target from several teachers, by either mean of their probabilities."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.distillation.temperature import softened


def mean_target(logits: Float[Tensor, "M *R K"], *, temperature: float) -> Float[Tensor, "*R K"]:
    """The mean of M teachers' softened probabilities: a class counts if any teacher thinks so."""
    return softened(logits, temperature).mean(0)


def geometric_target(logits: Float[Tensor, "M *R K"], *, temperature: float) -> Float[Tensor, "*R K"]:
    """The normalised geometric mean, Π_m p_m^(1/M), which is the softmax of mean logits: any teacher can veto."""
    return softened(logits.mean(0), temperature)
