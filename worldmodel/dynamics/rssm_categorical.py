"""Recurrent state-space model with categorical states: the filter q(s_t | o_1:t, a_1:t).

Hafner et al., Mastering Atari with Discrete World Models (2021); the uniform share from
Hafner et al., Mastering Diverse Domains through World Models (2023).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distributions import (
    Categoricals,
    balanced_kl,
    categorical_kl,
    mixed,
    one_hot_sample,
    straight_through,
    unimix,
)
from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.interfaces import Batch, Belief


class CategoricalRSSM(RecurrentState):
    """s = (h, z): a GRU state h and `groups` one-hot vectors of `classes` each, gradients straight through.

    deterministic: size of h. hidden: width of the two state heads. uniform: share of every categorical that is
    uniform, which bounds the KL. balance: share of the KL's gradient that trains the prior. free_nats: KL per row,
    summed over the groups, under which nothing is pushed.
    """

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
        if not 0 < uniform < 1:
            raise ValueError(f"dynamics.uniform: expected a number in (0, 1), got {uniform}")
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
        """Filter a window; with sample=False the latents are the posterior's modes."""
        keep = (~is_first).to(carry.dtype).unsqueeze(-1)
        # what actions and embeddings add to two layers, of all rows at once
        first, heads_first = self.inputs[0], self.posterior[0]
        assert isinstance(first, nn.Linear) and isinstance(heads_first, nn.Linear), (first, heads_first)
        inputs, heads = self.inputs[1:], self.posterior[1:]
        of_z, of_action = first.weight.split_with_sizes([self.stochastic, action.shape[-1]], 1)
        of_h, of_embed = heads_first.weight.split_with_sizes([self.deterministic, embed.shape[-1]], 1)
        controls, views = F.linear(action * keep, of_action), F.linear(embed, of_embed, heads_first.bias)
        # the class with the largest p / e, e exponential, is a draw from p; without noise it is the mode
        noise = carry.new_ones(*embed.shape[:2], self.groups, self.classes)
        noise = noise.exponential_() if sample else noise
        latent, latents, posteriors = carry, [], []
        for t in range(embed.shape[1]):
            h, z = (latent * keep[:, t]).split_with_sizes([self.deterministic, self.stochastic], -1)
            h = self.cell(inputs(_plus(controls[:, t], z, of_z)), h)
            posterior = self._probabilities(heads(_plus(views[:, t], h, of_h)))
            chosen = F.one_hot((posterior.detach() / noise[:, t]).argmax(-1), self.classes)
            latent = self._join(h, chosen + (posterior - posterior.detach()))  # gradients straight through
            latents.append(latent)
            posteriors.append(posterior)
        stacked = torch.stack(latents, 1)
        prior = self._log_probs(self.prior(stacked[..., : self.deterministic]))
        statistics = {"posterior": torch.stack(posteriors, 1).log(), "prior": prior}
        return Belief(latent=stacked, carry=latent, statistics=statistics)

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

    def _probabilities(self, logits: Tensor) -> Tensor:
        return mixed(logits.float().unflatten(-1, (self.groups, self.classes)), self.uniform)

    def _log_probs(self, logits: Tensor) -> Tensor:
        return unimix(logits.float().unflatten(-1, (self.groups, self.classes)), self.uniform)

    def _join(self, h: Tensor, z: Tensor) -> Tensor:
        return torch.cat([h, z.flatten(-2).to(h.dtype)], -1)


def _plus(part: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.addmm(part, x.to(part.dtype), weight.t().to(part.dtype))


make = CategoricalRSSM
