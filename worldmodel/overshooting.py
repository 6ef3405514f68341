"""Latent overshooting: priors that were rolled ahead must also meet the posteriors.

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), equation 7.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import Moments, gaussian_kl
from worldmodel.unrolling import later_rows


def latent_overshooting(
    prior: Callable[[Tensor, Tensor], Moments],
    latent: Float[Tensor, "B T D"],
    posterior: Moments,
    action: Float[Tensor, "B T A"],
    *,
    steps: int,
) -> Float[Tensor, "B L K"]:
    """KL(q(s_t+k) || p(s_t+k | s_t, a)) for k = 1 to `steps` = K from each of the first L = T - K rows, in nats.

    prior: mean and std [*R D] of the next latent; it is rolled on a sample of itself. posterior: of every row, held
    still. k = 1 is the ELBO's own term.
    """
    starts = latent.shape[1] - steps
    if starts < 1 or steps < 1:
        raise ValueError(f"steps: expected 1 to {latent.shape[1] - 1}, got {steps}")
    state, moments = latent[:, :starts], []
    for k in range(steps):
        mean, std = prior(state, action[:, k + 1 : k + 1 + starts])
        state = mean + std * torch.randn_like(std)
        moments.append((mean, std))
    rolled = torch.stack([m for m, _ in moments], 2), torch.stack([s for _, s in moments], 2)
    # stop-grad: far priors must not blur the posteriors
    target = later_rows(posterior[0].detach(), steps=steps), later_rows(posterior[1].detach(), steps=steps)
    return gaussian_kl(target, rolled)
