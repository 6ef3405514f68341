"""Recurrent state-space model with Gaussian states: the filter q(s_t | o_1:t, a_1:t).

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019); KL balancing from
Hafner et al., Mastering Atari with Discrete World Models (2021).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distributions import Moments, balanced_kl
from worldmodel.dynamics._fused_filter import ScanWeights, scan
from worldmodel.dynamics._packed_rollout import GaussianRollout
from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.interfaces import Batch, Belief


class GaussianRSSM(RecurrentState):
    """s = (h, z): a GRU state h and a Gaussian z whose prior sees h and whose posterior also sees the frame.

    deterministic, stochastic: sizes of h and z. hidden: width of the two state heads.
    balance: share of the KL's gradient that trains the prior. free_nats: KL per row under which nothing is pushed.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        action_dim: int,
        deterministic: int = 128,
        stochastic: int = 24,
        hidden: int = 200,
        min_std: float = 0.1,
        balance: float = 0.8,
        free_nats: float = 1.0,
    ) -> None:
        sizes = {"embed_dim": embed_dim, "action_dim": action_dim, "deterministic": deterministic}
        super().__init__(**sizes, stochastic=stochastic, hidden=hidden, outputs=2 * stochastic)
        self.min_std, self.balance, self.free_nats = min_std, balance, free_nats

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool,
    ) -> Belief:
        """Filter a window; with sample=False the latents are the posterior's means."""
        B, T = embed.shape[:2]
        keep = (~is_first).to(carry.dtype).unsqueeze(-1)
        noise = carry.new_empty(B, T, self.stochastic)
        noise = noise.normal_() if sample else noise.zero_()
        of_action, of_embed, weights = self._scan_weights()
        filtered = scan(
            F.linear(embed, *of_embed),
            F.linear(action * keep, of_action),
            keep,
            noise,
            carry,
            weights=weights,
            min_std=self.min_std,
        )
        prior_mean, prior_std = self._moments(self.prior(filtered.latent[..., : self.deterministic]))
        statistics = {
            "posterior_mean": filtered.mean,
            "posterior_std": filtered.std,
            "prior_mean": prior_mean,
            "prior_std": prior_std,
        }
        return Belief(latent=filtered.latent, carry=filtered.latent[:, -1], statistics=statistics)

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One step of the prior with z at its mean."""
        h = self.recur(latent, action)
        return torch.cat([h, self._prior_mean(h)], -1)

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One step of the prior with z sampled by reparameterisation."""
        return self.ahead(latent, action)[0]

    def ahead(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
    ) -> tuple[Float[Tensor, "*R D"], Moments]:
        """A sample of the prior, and the moments that its z was drawn with."""
        h = self.recur(latent, action)
        mean, std = self._moments(self.prior(h))
        return torch.cat([h, mean + std * torch.randn_like(std)], -1), (mean, std)

    def rollout(self, dtype: torch.dtype) -> GaussianRollout:
        """`predict` for planners: many rows, no gradients, products in `dtype`; keeps the weights of now."""
        return GaussianRollout(
            inputs=self.inputs, cell=self.cell, prior=self.prior, stochastic=self.stochastic, dtype=dtype
        )

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """The balanced KL from posterior to prior, in nats per row."""
        stats = belief.statistics
        kl = balanced_kl(
            (stats["posterior_mean"], stats["posterior_std"]),
            (stats["prior_mean"], stats["prior_std"]),
            balance=self.balance,
            free_nats=self.free_nats,
        )
        return {"kl": kl}

    def _scan_weights(self) -> tuple[Tensor, tuple[Tensor, Tensor], ScanWeights]:
        """The shares of actions and embeddings in the two layers before the norms, and all that acts row by row."""
        layers: list[Any] = [*self.inputs, self.cell.gates, self.cell.norm, *self.posterior]
        inputs, input_norm, _, gates, gates_norm, posterior, state_norm, _, moments = layers
        # splits, not slices: their gradient is one concatenation instead of two padded sums
        of_z, of_action = inputs.weight.split_with_sizes([self.stochastic, self.action_dim], 1)
        of_h, of_embed = posterior.weight.split_with_sizes([self.deterministic, self.embed_dim], 1)
        weights = ScanWeights(
            input=of_z,
            input_gain=input_norm.weight,
            input_shift=input_norm.bias,
            gates=gates.weight,
            gates_gain=gates_norm.weight,
            gates_shift=gates_norm.bias,
            state=of_h,
            state_gain=state_norm.weight,
            state_shift=state_norm.bias,
            moments=moments.weight,
            moments_bias=moments.bias,
        )
        return of_action, (of_embed, posterior.bias), weights

    def _prior_mean(self, h: Tensor) -> Tensor:
        *hidden, last = self.prior
        for layer in hidden:
            h = layer(h)
        assert isinstance(last, nn.Linear), last
        # planners predict means only: the std's half of the layer would be wasted
        return F.linear(h, last.weight[: self.stochastic], last.bias[: self.stochastic]).float()

    def _moments(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = statistics.float().chunk(2, -1)
        return mean, F.softplus(raw) + self.min_std


make = GaussianRSSM
