"""Open-loop prediction: watch a few frames, then imagine the rest from the recorded actions alone."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Batch


class OpenLoop(NamedTuple):
    """What is expected of every row; before `context` these are reconstructions, then predictions.

    Args:
        observation: by name, images [B T c h w] in [0, 1] and vectors [B T d] in the environment's own units; None
            of a model without a decoder.
        rewards: in the environment's own unit.
    """

    observation: Mapping[str, Tensor] | None
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
    observation = None
    if agent.decoder is not None:
        decoded = agent.decoder(latent.flatten(0, 1))
        observation = agent.norm.denormalise({name: rows.unflatten(0, (-1, T)) for name, rows in decoded.items()})
    return OpenLoop(observation, agent.reward(latent))
