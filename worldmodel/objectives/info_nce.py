"""A latent must tell its own frame's embedding from those of all other rows.

van den Oord et al., Representation Learning with Contrastive Predictive Coding (2018).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.limits import require_number
from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Embeds, Latents, Objective


class InfoNCE(Objective):
    """Cross-entropy of the right row among all, by the cosine of a projected latent and an embedding, in nats.

    Args:
        temperature: of the softmax.
        weight: of the loss term.
    """

    def __init__(self, *, encoder: Embeds, dynamics: Latents, temperature: float = 0.1, weight: float = 1.0) -> None:
        require_number(weight=weight, least=0)
        super().__init__(info_nce=weight)
        require_number(temperature=temperature, above=0)
        self.project, self.temperature = nn.Linear(dynamics.latent_dim, encoder.embed_dim), temperature

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`info_nce`, over all rows of the batch."""
        return {"info_nce": self(seen.belief.select(seen.belief.latent), seen.belief.select(seen.embed))}

    def forward(self, latent: Float[Tensor, "R D"], embed: Float[Tensor, "R E"]) -> Float[Tensor, ""]:
        """The mean over rows; embeddings are held still."""
        # stop-grad: else both sides could agree on something that the frames do not show
        target = F.normalize(embed.detach(), dim=-1)
        logits = F.normalize(self.project(latent), dim=-1) @ target.T / self.temperature
        return F.cross_entropy(logits.float(), torch.arange(len(latent), device=latent.device))


make = InfoNCE
