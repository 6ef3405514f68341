"""A latent must tell a code of its own frame; codes must look like a standard normal, which keeps them apart.

Balestriero & LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics (2025), after the
test of Epps and Pulley (1983).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.limits import require_number, require_whole
from worldmodel.model import Model, Seen
from worldmodel.nets import mlp
from worldmodel.objectives.objective import Embeds, Latents, Objective


class SIGReg(Objective):
    """Squared distance of a code, linear in the embedding, to its prediction from the latent; and the codes' normality.

    Neither side is held still.

    Args:
        code_dim: size of the code.
        hidden: width of the hidden layers.
        projections, knots, reach: of the statistic.
        weight: of the distance.
        normality: of the statistic.
    """

    def __init__(
        self,
        *,
        encoder: Embeds,
        dynamics: Latents,
        code_dim: int = 32,
        hidden: int = 200,
        projections: int = 256,
        knots: int = 17,
        reach: float = 3.0,
        weight: float = 20.0,
        normality: float = 20.0,
    ) -> None:
        require_whole(code_dim=code_dim)
        require_number(weight=weight, normality=normality, least=0)
        super().__init__(code=weight, sigreg=normality)
        self.code = nn.Linear(encoder.embed_dim, code_dim)
        self.predict = mlp(dynamics.latent_dim, hidden, 1, code_dim)
        self.statistic = Normality(projections=projections, knots=knots, reach=reach)

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`code` and `sigreg`."""
        code = self.code(seen.belief.select(seen.embed))
        missed = self.predict(seen.belief.select(seen.belief.latent)) - code
        return {"code": missed.square().mean(), "sigreg": self.statistic(code)}


class Normality(nn.Module):
    """Weighted squared distance of characteristic functions, averaged over `projections` fresh directions.

    Args:
        knots, reach: of the trapezoid rule over frequencies [0, reach], doubled for their mirror images.
    """

    frequency: Tensor
    normal: Tensor
    weight: Tensor

    def __init__(self, *, projections: int = 256, knots: int = 17, reach: float = 3.0) -> None:
        super().__init__()
        require_whole(projections=projections)
        require_whole(knots=knots, least=2)
        require_number(reach=reach, above=0)
        self.projections = projections
        frequency = torch.linspace(0, reach, knots)
        rule = torch.full((knots,), 2 * reach / (knots - 1))
        rule[[0, -1]] /= 2
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("normal", (-frequency.square() / 2).exp(), persistent=False)
        self.register_buffer("weight", rule * self.normal, persistent=False)

    def forward(self, code: Float[Tensor, "R C"]) -> Float[Tensor, ""]:
        """The statistic per row, so that it does not grow with the batch."""
        direction = torch.randn(code.shape[-1], self.projections, device=code.device)
        along = code.float() @ (direction / direction.norm(dim=0))  # [R P]
        angle = along.unsqueeze(-1) * self.frequency  # [R P K]
        real, imaginary = angle.cos().mean(0), angle.sin().mean(0)
        distance = (real - self.normal).square() + imaginary.square()
        return (distance @ self.weight).mean()


make = SIGReg
