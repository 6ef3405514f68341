"""Deterministic latents g(o) with learned dynamics f(s, a): equation 5.3.6 on a short stack of frames.

One frame does not show velocity, so g sees the embeddings of the last few. Every frame is embedded once.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.interfaces import Belief
from worldmodel.nets import mlp


class DeterministicDynamics(nn.Module):
    """s_t = g(o_{t-k+1..t}), s_{t+1} = f(s_t, a_t) as a residual step, both normalised to zero mean and unit std.

    The normalisation fixes the latent's scale, which a latent prediction loss alone would let shrink to nothing.
    stack: frames that g sees, k. The carry holds the k-1 embeddings before now, and whether they are real.
    """

    def __init__(
        self, *, embed_dim: int, action_dim: int, latent_dim: int = 128, hidden: int = 256, stack: int = 3
    ) -> None:
        super().__init__()
        if stack < 1:
            raise ValueError(f"dynamics.stack: expected at least 1 frame, got {stack}")
        self.embed_dim, self.latent_dim, self.stack = embed_dim, latent_dim, stack
        self.carry_dim = (stack - 1) * embed_dim + 1
        self.infer = mlp(stack * embed_dim, hidden, 1, latent_dim)
        self.change = mlp(latent_dim + action_dim, hidden, 2, latent_dim)

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool,
    ) -> Belief:
        """Latents of a window, all rows at once; `action` and `sample` change nothing here."""
        stacked, carry = self._stack(embed, is_first, carry)
        return Belief(latent=self._normal(self.infer(stacked)), carry=carry, statistics={})

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One step of f."""
        return self._normal(latent + self.change(torch.cat([latent, action], -1)))

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The same step: there is nothing to sample."""
        return self.predict(latent, action)

    def losses(
        self, belief: Belief, action: Float[Tensor, "B T A"], is_first: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        """None of its own: the agent's unrolled prediction trains f."""
        return {}

    def _normal(self, latent: Tensor) -> Tensor:
        return F.layer_norm(latent, (self.latent_dim,))

    def _stack(self, embed: Tensor, is_first: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """The last k embeddings of every row [B T kE], and the carry after the window.

        Rows before an episode's start, or before a window that begins without a carry, repeat its first frame.
        """
        B, T, _ = embed.shape
        past, known = carry[:, :-1], carry[:, -1] > 0
        line = torch.cat([past.reshape(B, self.stack - 1, self.embed_dim).to(embed.dtype), embed], 1)
        now = torch.arange(T, device=embed.device) + self.stack - 1
        opened = torch.where(is_first, now, torch.where(known, 0, self.stack - 1)[:, None])
        opened = opened.cummax(1).values
        lags = torch.arange(self.stack - 1, -1, -1, device=embed.device)
        source = torch.maximum(now[None, :, None] - lags, opened[..., None])
        rows = torch.arange(B, device=embed.device)[:, None, None]
        stacked = line[rows, source]  # [B T k E]
        after = torch.cat([stacked[:, -1, 1:].flatten(1), torch.ones_like(carry[:, :1])], -1)
        return rearrange(stacked, "B T k E -> B T (k E)"), after


make = DeterministicDynamics
