"""Latents and embeddings must agree dimension by dimension, and dimensions must not repeat each other.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction (2021).
"""

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.limits import require_number
from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Embeds, Latents, Objective


class Barlow(Objective):
    """Squared distance of the cross-correlation from the identity, off the diagonal times `redundancy`.

    Args:
        redundancy: weight of the entries off the diagonal.
        weight: of the loss term.
    """

    def __init__(self, *, encoder: Embeds, dynamics: Latents, redundancy: float = 5e-4, weight: float = 0.05) -> None:
        require_number(weight=weight, redundancy=redundancy, least=0)
        super().__init__(barlow=weight)
        self.project, self.redundancy = nn.Linear(dynamics.latent_dim, encoder.embed_dim), redundancy

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`barlow`, over all rows of the batch."""
        return {"barlow": self(seen.belief.select(seen.belief.latent), seen.belief.select(seen.embed))}

    def forward(self, latent: Float[Tensor, "R D"], embed: Float[Tensor, "R E"]) -> Float[Tensor, ""]:
        """The sum over the correlation's entries; embeddings are held still."""
        # stop-grad: the frames' side is what the latent is to keep
        return cross_correlation_loss(self.project(latent), embed.detach(), redundancy=self.redundancy)


def cross_correlation_loss(
    ours: Float[Tensor, "R E"], theirs: Float[Tensor, "R E"], *, redundancy: float
) -> Float[Tensor, ""]:
    """Squared distance of two views' cross-correlation from the identity, off the diagonal times `redundancy`."""
    correlation = _standard(ours.float()).T @ _standard(theirs.float()) / len(ours)
    diagonal = correlation.diagonal()
    across = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + redundancy * across


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0, correction=0).clamp_min(1e-6)


make = Barlow
