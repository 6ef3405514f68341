"""The global policy of guided policy search: a network as a linear-Gaussian policy, and its KL from local ones."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from worldmodel.distributions import Moments
from worldmodel.local_models.linear_gaussian import LinearGaussianPolicy
from worldmodel.local_models.regression import regress_around


def linearise_policy(
    moments: Callable[[Tensor], Moments],
    states: Float[Tensor, "B N H n"],
    *,
    spread: Float[Tensor, "n"],
    strength: float,
) -> LinearGaussianPolicy:
    """The network around sampled states: its mean regressed on them at every step, its derivatives as the prior.

    Args:
        moments: latents to mean and std of the controls.
        states: N of every start and step.
        spread: stds of states within which the derivatives may be trusted.
        strength: how many samples the derivatives weigh.

    Returns:
        The policy; N(0, 1) for starts where the network is not finite.
    """
    B, _, H, _ = states.shape
    centre = states.mean(1)
    mean, std = (x.double() for x in moments(states))
    A = mean.shape[-1]
    slope = vmap(jacrev(lambda x: moments(x[None])[0][0]))(centre.flatten(0, 1)).unflatten(0, (B, H)).double()
    noise = torch.eye(A).to(slope).expand(B, H, A, A)
    K, k, _ = regress_around(
        centre.double(),
        slope,
        moments(centre)[0].double(),
        noise,
        inputs=states.double().transpose(1, 2),
        outputs=mean.transpose(1, 2),
        spread=spread,
        strength=strength,
    )
    neutral = LinearGaussianPolicy(torch.zeros_like(K), torch.zeros_like(k), noise)
    return LinearGaussianPolicy(K, k, torch.diag_embed(std.square().mean(1))).where_finite(neutral)


def supervised_kl(
    mean: Float[Tensor, "*R A"],
    std: Float[Tensor, "*R A"],
    target: Float[Tensor, "*R A"],
    precision: Float[Tensor, "*R A A"],
) -> Float[Tensor, "*R"]:
    """KL(π || p) in nats of a network's diagonal Gaussian from a local policy's, N(target, precision⁻¹).

    Minimal over a state-independent std at std⁻² = the mean of the precisions' diagonals, as section 14 has it.
    """
    away = mean - target
    distance = torch.einsum("...i,...ij,...j->...", away, precision, away)
    trace = (precision.diagonal(dim1=-2, dim2=-1) * std.square()).sum(-1)
    log_volume = -torch.linalg.slogdet(precision)[1] - 2 * std.log().sum(-1)
    return 0.5 * (distance + trace - mean.shape[-1] + log_volume)
