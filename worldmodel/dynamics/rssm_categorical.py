"""Recurrent state-space model with categorical states: the filter q(s_t | o_1:t, a_1:t).

Hafner et al., Mastering Atari with Discrete World Models (2021); the uniform share from
Hafner et al., Mastering Diverse Domains through World Models (2023).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distributions import (
    Categoricals,
    balanced_kl,
    categorical_kl,
    mixed,
    one_hot_mode,
    one_hot_sample,
    straight_through,
    unimix,
)
from worldmodel.dynamics._split_filter import split_filter
from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_number, require_whole


class CategoricalRSSM(RecurrentState):
    """s = (h, z): a GRU state h and `groups` one-hot vectors of `classes` each, gradients straight through.

    Args:
        embed_dim, action_dim: E and A, numbers of an embedding and of an action.
        deterministic: size of h.
        groups: categoricals of z.
        classes: of each categorical.
        hidden: width of the two state heads.
        uniform: share of every categorical that is uniform, which bounds the KL.
        balance: share of the KL's gradient that trains the prior.
        free_nats: KL per row, summed over the groups, under which nothing is pushed.
    """

    fused = True  # the filter, forward and back, takes 48 ms instead of 61 (12 x 24 rows, one busy core)

    def __init__(
        self,
        *,
        embed_dim: int,
        action_dim: int,
        deterministic: int = 128,
        groups: int = 16,
        classes: int = 16,
        hidden: int = 200,
        uniform: float = 0.01,
        balance: float = 0.8,
        free_nats: float = 1.0,
    ) -> None:
        require_whole(deterministic=deterministic, groups=groups)
        require_whole(classes=classes, least=2)
        require_number(free_nats=free_nats, least=0)
        require_number(balance=balance, least=0, most=1)
        require_number(uniform=uniform, above=0, below=1)
        sizes = {"embed_dim": embed_dim, "action_dim": action_dim, "deterministic": deterministic}
        super().__init__(**sizes, stochastic=groups * classes, hidden=hidden, outputs=groups * classes)
        self.groups, self.classes = groups, classes
        self.uniform, self.balance, self.free_nats = uniform, balance, free_nats

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool,
    ) -> Belief:
        """Filter a window; with sample=False z' is the posterior's mode instead of a sample."""
        keep = (~is_first).to(carry.dtype).unsqueeze(-1)  # an episode opens with h = z = a = 0
        # the class with the largest p / e, e exponential, is a draw from p; without noise it is the mode
        noise = carry.new_ones(*embed.shape[:2], self.groups, self.classes)
        noise = noise.exponential_() if sample else noise
        if self.fused:
            latents, posteriors = split_filter(self, embed, action, keep, noise, carry, draw=self._draw)
        else:
            latent, rows = carry, []
            for t in range(embed.shape[1]):
                h = self.recur(latent * keep[:, t], action[:, t] * keep[:, t])  # h' = GRU(h, z, a)
                logits = self.posterior(torch.cat([h, embed[:, t]], -1))
                latent, posterior = self._draw(h, logits, noise[:, t])  # z' ~ q(z' | h', e)
                rows.append((latent, posterior))
            latents, posteriors = (torch.stack(column, 1) for column in zip(*rows, strict=True))
        prior = self._log_probs(self.prior(latents[..., : self.deterministic]))  # p(z' | h')
        return Belief(latent=latents, carry=latents[:, -1], statistics={"posterior": posteriors.log(), "prior": prior})

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One step of the prior with z at its mean, the probabilities: smooth in the action, unlike a mode."""
        h = self.recur(latent, action)
        return self._join(h, self._log_probs(self.prior(h)).exp())

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One step of the prior with z sampled, gradients straight through."""
        return self.ahead(latent, action)[0]

    def ahead(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
    ) -> tuple[Float[Tensor, "*R D"], Categoricals]:
        """A sample of the prior, and the log probabilities that its z was drawn with."""
        h = self.recur(latent, action)
        prior = self._log_probs(self.prior(h))
        return self._join(h, straight_through(prior, one_hot_sample(prior))), (prior,)

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """The balanced KL from posterior to prior, in nats per row."""
        q, p = (belief.statistics["posterior"],), (belief.statistics["prior"],)
        return {"kl": balanced_kl(q, p, balance=self.balance, free_nats=self.free_nats, kl=categorical_kl)}

    def _draw(self, h: Tensor, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(h, z) [B D] with the class of the largest p / noise in every group, straight through; and p [B G K]."""
        posterior = mixed(logits.float().unflatten(-1, (self.groups, self.classes)), self.uniform)
        chosen = one_hot_mode(posterior.detach() / noise)
        return self._join(h, chosen + (posterior - posterior.detach())), posterior

    def _log_probs(self, logits: Tensor) -> Tensor:
        return unimix(logits.float().unflatten(-1, (self.groups, self.classes)), self.uniform)

    def _join(self, h: Tensor, z: Tensor) -> Tensor:
        return torch.cat([h, z.flatten(-2).to(h.dtype)], -1)


make = CategoricalRSSM
