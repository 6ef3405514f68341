"""Open-loop prediction: watch a few frames, then imagine the rest from the recorded actions alone."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Batch


class OpenLoop(NamedTuple):
    """Frames in [0, 1] and rewards of every row; before `context` they are reconstructions, then predictions.

    A model without a decoder has no frames.
    """

    frames: Float[Tensor, "B T c h w"] | None
    rewards: Float[Tensor, "B T"]


@torch.no_grad()
def open_loop(agent: LatentMPC, batch: Batch, *, context: int) -> OpenLoop:
    """Filter the first `context` rows of every window, then roll the prior's mean to the window's end."""
    T = batch.reward.shape[1]
    if not 0 < context < T:
        raise ValueError(f"context: expected 1 to {T - 1} of {T} rows, got {context}")
    seen = agent.observe(batch.rows(0, context), sample=False)
    latents = list(seen.latent.unbind(1))
    for t in range(context, T):
        latents.append(agent.dynamics.predict(latents[-1], batch.action[:, t]))
    latent = torch.stack(latents, 1)
    frames = None
    if agent.decoder is not None:
        decoded = rearrange(agent.decoder(latent.flatten(0, 1)), "(B T) c h w -> B T c h w", T=T)
        frames = agent.pixels.denormalise(decoded.float())
    return OpenLoop(frames=frames, rewards=agent.reward(latent))
