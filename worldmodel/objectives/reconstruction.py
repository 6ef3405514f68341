"""Decode the frames (the chapter's -log p(o | s))."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Dynamics
from worldmodel.objectives import Encoder, Model, Objective, Seen


class Reconstruction(Objective):
    """Share of the frames' variance left unexplained: a Gaussian's negative log-likelihood up to scale and constant.

    decode_fraction: share of a batch's frames that is decoded, a random subset: the decoder is the costliest part.
    """

    decodes = True

    def __init__(self, *, encoder: Encoder, dynamics: Dynamics, decode_fraction: float = 0.25) -> None:
        super().__init__(image=20.0)
        if not 0 < decode_fraction <= 1:
            raise ValueError(f"decode_fraction: expected a number in (0, 1], got {decode_fraction}")
        self.decode_fraction = decode_fraction

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """`image`."""
        assert model.decoder is not None
        latent, pixels = seen.belief.select(seen.belief.latent), seen.belief.select(seen.batch.pixels)
        count = max(1, round(self.decode_fraction * len(latent)))
        if count < len(latent):
            chosen = torch.randperm(len(latent), device=latent.device)[:count]
            latent, pixels = latent[chosen], pixels[chosen]
        error = model.decoder(latent).float() - model.pixels(pixels)
        return {"image": error.square().mean()}


make = Reconstruction
