"""Decode what was observed (the chapter's -log p(o | s))."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.limits import require_number
from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Embeds, Latents, Objective


class Reconstruction(Objective):
    """Share of each observation's variance left unexplained: a Gaussian's -log likelihood up to scale and constant.

    Args:
        decode_fraction: share of a batch's rows that is decoded, a random subset: the decoder is the costliest
            part.
    """

    decodes = True

    def __init__(self, *, encoder: Embeds, dynamics: Latents, decode_fraction: float = 0.25) -> None:
        super().__init__(image=20.0, vector=20.0)
        require_number(decode_fraction=decode_fraction, above=0, most=1)
        self.decode_fraction = decode_fraction

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`image` and `vector`, each where there is one."""
        assert model.decoder is not None
        latent = seen.belief.select(seen.belief.latent)
        observation = {name: seen.belief.select(rows) for name, rows in seen.batch.observation.items()}
        count = max(1, round(self.decode_fraction * len(latent)))
        if count < len(latent):
            chosen = torch.randperm(len(latent), device=latent.device)[:count]
            latent, observation = latent[chosen], {name: rows[chosen] for name, rows in observation.items()}
        return model.decoder.losses(latent, model.norm(observation))


make = Reconstruction
