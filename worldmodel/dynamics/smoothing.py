"""Smoothing q(s_t, s_t+1 | o_1:T, a_1:T) for learning, a filter beside it for acting (equation 5.3.5).

Given s_t, the past adds nothing to what the future says of s_t+1: a backward recurrence over o_t:T and a_t+1:T and the
last latent are all that the posterior needs. A row's own frame is also read directly: a fresh recurrence lets little of
it through.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from worldmodel.distributions import gaussian_kl
from worldmodel.dynamics.markov import GaussianMarkov
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_whole
from worldmodel.nets import NormGRUCell, mlp, recur


class SmoothingDynamics(GaussianMarkov):
    """Gaussian Markov latents: q(s_t | s_t-1, a_t-1, b_t) in learning, q(s_t | g_t) in acting.

    b_t is o_t and a GRU's state from the window's or the episode's end back to row t; g_t is o_t and one from the start
    up to it, which the carry holds. An episode's first latent, and a window's, has the prior N(0, 1). The filter learns
    the smoother's latents and moves nothing but itself.

    Args:
        embed_dim, action_dim: E and A, numbers of an embedding and of an action.
        latent_dim: D, numbers of a latent.
        hidden: width of the hidden layers.
        min_std: of both posteriors and the prior.
    """

    def __init__(
        self, *, embed_dim: int, action_dim: int, latent_dim: int = 64, hidden: int = 200, min_std: float = 0.1
    ) -> None:
        require_whole(latent_dim=latent_dim)
        super().__init__(min_std=min_std)
        self.latent_dim, self.carry_dim = latent_dim, hidden
        self.backward_in = mlp(embed_dim + action_dim, hidden, 1, hidden)
        self.backward_cell = NormGRUCell(hidden, hidden)
        self.forward_in = mlp(embed_dim + action_dim, hidden, 1, hidden)
        self.forward_cell = NormGRUCell(hidden, hidden)
        self.smoother = mlp(latent_dim + action_dim + hidden + embed_dim, hidden, 1, 2 * latent_dim)
        self.filter = mlp(hidden + embed_dim, hidden, 1, 2 * latent_dim)
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
        """With sample=True a sample of the smoother, which sees the whole window; else the filter's means."""
        keep = (~is_first).to(carry.dtype).unsqueeze(-1)
        controls = action * keep
        still = embed.detach()  # stop-grad: the encoder is the smoother's to shape
        seen = recur(self.forward_cell, self.forward_in(torch.cat([still, controls], -1)), keep, carry)
        carry = seen[:, -1]
        filter_mean, filter_std = self.moments(self.filter(torch.cat([seen, still], -1)))
        if not sample:
            return Belief(latent=filter_mean, carry=carry, statistics={})
        latent, statistics = self._smooth(self._look_back(embed, controls, keep), controls, keep)
        statistics |= {"filter_mean": filter_mean, "filter_std": filter_std}
        return Belief(latent=latent, carry=carry, statistics=statistics)

    def starts(self, belief: Belief) -> Float[Tensor, "B T D"]:
        """The filter's means, held still, to unroll from: the smoother's latents may know which actions will follow."""
        return belief.statistics["filter_mean"].detach()

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """The ELBO's KL of every row, and the filter's from the smoother, which is held still."""
        smoothed = belief.moments("posterior")
        # stop-grad: the smoother must not give up what the filter cannot know
        still = smoothed[0].detach(), smoothed[1].detach()
        return {
            "kl": gaussian_kl(smoothed, belief.moments("prior")),
            "filter": gaussian_kl(still, belief.moments("filter")),
        }

    def _look_back(self, embed: Tensor, action: Tensor, keep: Tensor) -> Tensor:
        """b_t of every row; an episode's last row knows nothing of the next episode."""
        after = F.pad(action[:, 1:], (0, 0, 0, 1))  # what was done at row t, a reset's being nothing
        inputs = self.backward_in(torch.cat([embed, after], -1))
        same = F.pad(keep[:, 1:], (0, 0, 0, 1))
        blank = keep.new_zeros(len(embed), self.carry_dim)
        states = recur(self.backward_cell, inputs.flip(1), same.flip(1), blank).flip(1)
        return torch.cat([states, embed], -1)

    def _smooth(self, future: Tensor, action: Tensor, keep: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents by ancestral sampling, and the moments of posterior and prior."""
        keep = torch.cat([torch.zeros_like(keep[:, :1]), keep[:, 1:]], 1)  # nothing is known of the row before
        controls = action * keep
        noise = torch.randn(*future.shape[:2], self.latent_dim, device=future.device)
        latent, rows = future.new_zeros(len(future), self.latent_dim), []
        streams = (x.unbind(1) for x in (future, controls, keep, noise))
        for seen, control, kept, draw in zip(*streams, strict=True):
            before = latent * kept
            # no residual step: dimensions that carry nothing would wander, and their noise drown what the others carry
            mean, std = self.moments(self.smoother(torch.cat([before, control, seen], -1)))
            latent = torch.addcmul(mean, std, draw)
            rows.append((latent, before, mean, std))
        latents, befores, means, stds = (torch.stack(column, 1) for column in zip(*rows, strict=True))
        prior_mean, prior_std = self.prior(befores, controls)
        return latents, {
            "posterior_mean": means,
            "posterior_std": stds,
            "prior_mean": prior_mean * keep,
            "prior_std": torch.where(keep > 0, prior_std, 1.0),
        }


make = SmoothingDynamics
