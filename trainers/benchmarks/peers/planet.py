"""Kaixhin/PlaNet's update by its own modules: filter, decoded frames, rewards, KL over free nats."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from trainers.benchmarks.peers.checkout import import_from

EXPERIMENT = "planet_shapes"
# defaults of its main.py
BELIEF, STATE, HIDDEN, EMBEDDING, FREE_NATS = 200, 30, 200, 1024, 3.0
LEARNING_RATE, EPS, GRAD_CLIP = 1e-3, 1e-4, 1000.0


def build(checkout: Path, *, action_dim: int, batch: int, length: int) -> tuple[Callable[[], object], int]:
    """An update on `batch` windows of `length` rows of noise, and its number of weights."""
    (models,) = import_from(checkout, "models")
    dynamics = models.TransitionModel(BELIEF, STATE, action_dim, HIDDEN, EMBEDDING)
    decoder = models.ObservationModel(False, (3, 64, 64), BELIEF, STATE, EMBEDDING)
    reward_model = models.RewardModel(BELIEF, STATE, HIDDEN)
    encoder = models.Encoder(False, (3, 64, 64), EMBEDDING)
    weights = [weight for part in (dynamics, decoder, reward_model, encoder) for weight in part.parameters()]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE, eps=EPS)
    # its windows are time-major, and a window of n + 1 rows has n frames that are filtered and decoded
    frames = torch.rand(length, batch, 3, 64, 64) - 0.5
    actions, rewards = torch.rand(length, batch, action_dim) * 2 - 1, torch.rand(length, batch)
    going_on = torch.ones(length, batch, 1)
    belief, state = torch.zeros(batch, BELIEF), torch.zeros(batch, STATE)

    def update() -> None:
        embedded = models.bottle(encoder, (frames,))
        beliefs, _, *prior, states, mean, std = dynamics(state, actions, belief, embedded, going_on)
        kl: Tensor = kl_divergence(Normal(mean, std), Normal(*prior)).sum(2)
        decoded = models.bottle(decoder, (beliefs, states))
        image = F.mse_loss(decoded, frames, reduction="none").sum((2, 3, 4)).mean()
        reward = F.mse_loss(models.bottle(reward_model, (beliefs, states)), rewards)
        optimizer.zero_grad()
        (image + reward + kl.clamp_min(FREE_NATS).mean()).backward()
        nn.utils.clip_grad_norm_(weights, GRAD_CLIP)
        optimizer.step()

    return update, sum(weight.numel() for weight in weights)
