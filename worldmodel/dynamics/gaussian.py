"""Gaussian latents q(s_t | o_t) with a Markov prior p(s_t | s_t-1, a_t-1): the chapter's crude encoder (5.3.4).

The bound of this posterior, in which every row is inferred on its own, is looser than a filter's.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distributions import gaussian_kl
from worldmodel.dynamics.markov import GaussianMarkov
from worldmodel.dynamics.stack import carried, stack
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_whole
from worldmodel.nets import mlp


class GaussianDynamics(GaussianMarkov):
    """s_t ~ q(· | o_t-k+1..t) with k = `stack` frames, s_t+1 ~ p(· | s_t, a_t) as a residual step.

    An episode's first latent has the prior N(0, 1), and so has the first of a window without a carry whose stack is
    complete. The carry holds the stack's and the last latent.

    Args:
        embed_dim, action_dim: E and A, numbers of an embedding and of an action.
        latent_dim: D, numbers of a latent.
        hidden: width of the hidden layers.
        stack: k, frames that a latent reads.
        min_std: least std of every Gaussian.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        action_dim: int,
        latent_dim: int = 64,
        hidden: int = 256,
        stack: int = 3,
        min_std: float = 0.1,
    ) -> None:
        require_whole(latent_dim=latent_dim, stack=stack)
        super().__init__(min_std=min_std)
        self.latent_dim, self.stack = latent_dim, stack
        self.carry_dim = carried(embed_dim, stack) + latent_dim
        self.infer = mlp(stack * embed_dim, hidden, 1, 2 * latent_dim)
        self.change = mlp(latent_dim + action_dim, hidden, 2, 2 * latent_dim)

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool,
    ) -> Belief:
        """Infer all rows at once; with sample=False the latents are the posterior's means."""
        frames, last = carry.split([self.carry_dim - self.latent_dim, self.latent_dim], -1)
        known = frames[:, -1:] > 0
        stacked, frames, valid = stack(embed, is_first, frames, count=self.stack)
        # the first row that counts has none before it
        alone = is_first | (valid & ~torch.cat([known, valid[:, :-1]], 1))
        mean, std = self.moments(self.infer(stacked))
        latent = mean + std * torch.randn_like(std) if sample else mean
        before = torch.cat([last[:, None].to(latent.dtype), latent[:, :-1]], 1)
        prior_mean, prior_std = self.prior(before, action)
        statistics = {
            "posterior_mean": mean,
            "posterior_std": std,
            "prior_mean": torch.where(alone[..., None], 0.0, prior_mean),
            "prior_std": torch.where(alone[..., None], 1.0, prior_std),
        }
        carry = torch.cat([frames, latent[:, -1]], -1)
        return Belief(latent=latent, carry=carry, statistics=statistics, valid=valid)

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """KL(q(s_t | o_t) || p(s_t | s_t-1, a_t-1)), neither balanced nor floored: the ELBO's own term."""
        return {"kl": gaussian_kl(belief.moments("posterior"), belief.moments("prior"))}


make = GaussianDynamics
