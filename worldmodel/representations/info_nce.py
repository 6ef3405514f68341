"""A latent must tell its own frame's embedding from those of all other rows.

van den Oord et al., Representation Learning with Contrastive Predictive Coding (2018).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class InfoNCE(nn.Module):
    """Cross-entropy of the right row among all, by the cosine of a projected latent and an embedding, in nats."""

    def __init__(self, *, latent_dim: int, embed_dim: int, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        self.project, self.temperature = nn.Linear(latent_dim, embed_dim), temperature

    def forward(self, latent: Float[Tensor, "R D"], embed: Float[Tensor, "R E"]) -> Float[Tensor, ""]:
        """The mean over rows; embeddings are held still."""
        # stop-grad: else both sides could agree on something that the frames do not show
        target = F.normalize(embed.detach(), dim=-1)
        logits = F.normalize(self.project(latent), dim=-1) @ target.T / self.temperature
        return F.cross_entropy(logits.float(), torch.arange(len(latent), device=latent.device))


make = InfoNCE
