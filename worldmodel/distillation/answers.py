"""What a planner answered about latents, the newest of it, to be learned from many times."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.distillation.planner_gaussian import PlannerTarget


class Answers(nn.Module):
    """A ring of latents and the planner's Gaussians there; buffers, so that a resumed run goes on with them.

    Args:
        size: answers that are kept; a new one takes the place of the oldest.
        latent_dim, action_dim: sizes of latents and actions.
    """

    samples_of_rank_zero = True
    latents: Tensor  # [size D]
    means: Tensor  # [size A]
    stds: Tensor  # [size A]
    taken: Tensor  # [], how many there have been

    def __init__(self, *, size: int, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        self.register_buffer("latents", torch.zeros(size, latent_dim))
        self.register_buffer("means", torch.zeros(size, action_dim))
        self.register_buffer("stds", torch.ones(size, action_dim))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def take(self, latent: Float[Tensor, "R D"], target: PlannerTarget) -> None:
        """Keep what was answered at some latents, at most as many as there is room for."""
        places = (self.taken + torch.arange(len(latent), device=latent.device)) % len(self.latents)
        self.latents[places], self.means[places], self.stds[places] = latent, target.mean, target.std
        self.taken += len(latent)

    def draw(self, count: int) -> tuple[Float[Tensor, "R D"], PlannerTarget]:
        """`count` of them, with replacement; there must be one."""
        known = self.taken.clamp_max(len(self.latents))
        # by a share of what is known, so that a GPU is not asked how much that is
        picks = (torch.rand(count, device=self.latents.device) * known).long().clamp_max(len(self.latents) - 1)
        return self.latents[picks], PlannerTarget(self.means[picks], self.stds[picks])
