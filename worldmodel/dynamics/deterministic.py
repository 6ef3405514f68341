"""Deterministic latents g(o) with learned dynamics f(s, a): equation 5.3.6 on a short stack of frames."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.dynamics.stack import carried, stack
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_whole
from worldmodel.nets import mlp


class DeterministicDynamics(nn.Module):
    """s_t = g(o_{t-k+1..t}), s_{t+1} = f(s_t, a_t) as a residual step, both normalised to zero mean and unit std.

    The normalisation fixes the latent's scale, which a latent prediction loss alone would let shrink to nothing.

    Args:
        embed_dim, action_dim: E and A, numbers of an embedding and of an action.
        latent_dim: D, numbers of a latent.
        hidden: width of the hidden layers.
        stack: frames that g sees, k.
    """

    def __init__(
        self, *, embed_dim: int, action_dim: int, latent_dim: int = 128, hidden: int = 256, stack: int = 3
    ) -> None:
        require_whole(latent_dim=latent_dim, stack=stack)
        super().__init__()
        self.latent_dim, self.stack, self.carry_dim = latent_dim, stack, carried(embed_dim, stack)
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
        stacked, carry, valid = stack(embed, is_first, carry, count=self.stack)
        return Belief(latent=self._normal(self.infer(stacked)), carry=carry, statistics={}, valid=valid)

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        return self._normal(latent + self.change(torch.cat([latent, action], -1)))

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The same step: there is nothing to sample."""
        return self.predict(latent, action)

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """None of its own: the agent's unrolled prediction trains f."""
        return {}

    def _normal(self, latent: Tensor) -> Tensor:
        return F.layer_norm(latent, (self.latent_dim,))


make = DeterministicDynamics
