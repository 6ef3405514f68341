"""Latent overshooting: priors that were rolled ahead must also meet the posteriors.

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), equation 7.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import Statistics, categorical_kl, gaussian_kl
from worldmodel.interfaces import Belief, Dynamics
from worldmodel.unrolling import later_rows

Ahead = Callable[[Tensor, Tensor], tuple[Tensor, Statistics]]


def latent_overshooting(
    ahead: Ahead,
    latent: Float[Tensor, "B T D"],
    posterior: Statistics,
    action: Float[Tensor, "B T A"],
    *,
    steps: int,
) -> Float[Tensor, "B L K"]:
    """KL(q(s_t+k) || p(s_t+k | s_t, a)) for k = 1 to `steps` = K from each of the first L = T - K rows, in nats.

    ahead: a sample of the next latent and the statistics it was drawn with; it is rolled on its own samples.
    posterior: of every row, held still. k = 1 is the ELBO's own term.
    """
    starts = latent.shape[1] - steps
    if starts < 1 or steps < 1:
        raise ValueError(f"objective.steps: expected 1 to {latent.shape[1] - 1}, got {steps}")
    state, rolled = latent[:, :starts], []
    for k in range(steps):
        state, prior = ahead(state, action[:, k + 1 : k + 1 + starts])
        rolled.append(prior)
    # stop-grad: far priors must not blur the posteriors
    target = tuple(later_rows(x.detach(), steps=steps) for x in posterior)
    kl: Callable[..., Tensor] = gaussian_kl if len(posterior) == 2 else categorical_kl
    return kl(target, tuple(torch.stack(column, 2) for column in zip(*rolled, strict=True)))


def stepper(dynamics: Dynamics) -> Ahead:
    """The dynamics' own `ahead`; one that only predicts has Gaussians of unit std around its predictions."""

    def around(latent: Tensor, action: Tensor) -> tuple[Tensor, Statistics]:
        mean = dynamics.predict(latent, action)
        return mean, (mean, torch.ones_like(mean))

    return getattr(dynamics, "ahead", around)


def posterior_of(belief: Belief) -> Statistics:
    """What the filter drew its latents with; unit std around them where it draws nothing."""
    stats = belief.statistics
    if "posterior" in stats:
        return (stats["posterior"],)
    if "posterior_mean" in stats:
        return stats["posterior_mean"], stats["posterior_std"]
    return belief.latent, torch.ones_like(belief.latent)
