"""Distributions in closed form: Gaussians, groups of categoricals, their KL, and the squashed normal of policies."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldmodel.interfaces import Noise
from worldmodel.transfer import send

Moments = tuple[Tensor, Tensor]  # mean and std, same shape
Categoricals = tuple[Tensor]  # log probabilities [*R G K] of G groups of K classes
Statistics = Moments | Categoricals


def standard_normal(*shape: int, generator: Noise, device: torch.device | str) -> Float[Tensor, "*shape"]:
    """N(0, 1) noise on a device, drawn where its generator lives: one seed means the same noise on every device.

    Several generators share the first axis equally, in their order.
    """
    return _drawn(torch.randn, shape, generator, device)


def uniform(*shape: int, generator: Noise, device: torch.device | str) -> Float[Tensor, "*shape"]:
    """Noise in [0, 1), drawn as `standard_normal` is."""
    return _drawn(torch.rand, shape, generator, device)


def _drawn(
    draw: Callable[..., Tensor], shape: tuple[int, ...], generator: Noise, device: torch.device | str
) -> Float[Tensor, "*shape"]:
    if isinstance(generator, Sequence):
        rows, several = shape[0] // len(generator), list(generator)
        assert rows * len(several) == shape[0], (shape, len(several))
        return send(torch.cat([draw(rows, *shape[1:], generator=g, device=g.device) for g in several]), device)
    source = device if generator is None else generator.device
    return send(draw(*shape, generator=generator, device=source), device)


def read_moments(outputs: Float[Tensor, "*R moments"], min_std: float) -> Moments:
    """Halves of a layer's outputs as mean and std, in float32, the std softened and above `min_std`."""
    mean, raw = outputs.float().chunk(2, -1)
    return mean, F.softplus(raw) + min_std


def gaussian_kl(q: Moments, p: Moments) -> Float[Tensor, "*R"]:
    """KL(q || p) of diagonal Gaussians in nats, summed over the last axis."""
    (q_mean, q_std), (p_mean, p_std) = q, p
    ratio = (q_std / p_std).square()
    distance = ((q_mean - p_mean) / p_std).square()
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def mixed(logits: Float[Tensor, "*R classes"], share: float) -> Float[Tensor, "*R classes"]:
    """Probabilities of a categorical of which `share` is uniform."""
    return (1 - share) * logits.softmax(-1) + share / logits.shape[-1]


def unimix(logits: Float[Tensor, "*R classes"], share: float) -> Float[Tensor, "*R classes"]:
    """Log probabilities of a categorical of which `share` is uniform: none is below log(share / K)."""
    return mixed(logits, share).log()


def categorical_kl(q: Categoricals, p: Categoricals) -> Float[Tensor, "*R"]:
    """KL(q || p) of independent categoricals in nats, summed over the groups."""
    (q_log,), (p_log,) = q, p
    return (q_log.exp() * (q_log - p_log)).sum((-2, -1))


def straight_through(
    log_probs: Float[Tensor, "*R classes"], one_hot: Float[Tensor, "*R classes"]
) -> Float[Tensor, "*R classes"]:
    """`one_hot` to whoever reads it, the probabilities to the gradient (Bengio et al., 2013)."""
    probabilities = log_probs.exp()
    return one_hot + (probabilities - probabilities.detach())


def one_hot_mode(log_probs: Float[Tensor, "*R classes"]) -> Float[Tensor, "*R classes"]:
    """The most probable class."""
    # F.one_hot looks for indices that are out of range first, on a CPU
    return torch.zeros_like(log_probs).scatter_(-1, log_probs.argmax(-1, keepdim=True), 1.0)


def one_hot_sample(log_probs: Float[Tensor, "*R classes"]) -> Float[Tensor, "*R classes"]:
    """A class drawn by the Gumbel maximum, without the host in between."""
    noise = -torch.empty_like(log_probs).exponential_().log()
    return one_hot_mode(log_probs.detach() + noise)


def balanced_kl(
    q: Statistics, p: Statistics, *, balance: float, free_nats: float, kl: Callable[[Any, Any], Tensor] = gaussian_kl
) -> Float[Tensor, "*R"]:
    """KL(q || p) whose gradient goes to p with weight `balance` and to q with the rest, nothing below `free_nats`.

    Hafner et al., Mastering Atari with Discrete World Models (2021), algorithm 2.
    """
    detached_q, detached_p = (tuple(x.detach() for x in statistics) for statistics in (q, p))
    # stop-grad: the prior should chase the posterior, not drag it
    chase = kl(detached_q, p).clamp_min(free_nats)
    drag = kl(q, detached_p).clamp_min(free_nats)
    return balance * chase + (1 - balance) * drag


def squashed_sample(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Float[Tensor, "*R A"], Float[Tensor, "*R"]]:
    """A reparameterised a = tanh(u), u = mean + std * noise, and log π(a).

    Uses log(1 - tanh²u) = 2(log 2 - u - softplus(-2u)), finite for every u.
    """
    u = mean + std * noise
    log_normal = -0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(-1)
