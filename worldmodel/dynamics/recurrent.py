"""A recurrent state beside a stochastic one: the networks that both recurrent state-space models share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.nets import NormGRUCell, mlp


class RecurrentState(nn.Module):
    """s = (h, z): h' = GRU(silu(norm(z, a)), h), a prior of z' that sees h' and a posterior that also sees the frame.

    Args:
        deterministic, stochastic: sizes of h and z.
        hidden: width of the two heads.
        outputs: what each head says of z.
    """

    def __init__(
        self, *, embed_dim: int, action_dim: int, deterministic: int, stochastic: int, hidden: int, outputs: int
    ) -> None:
        super().__init__()
        self.embed_dim, self.action_dim = embed_dim, action_dim
        self.deterministic, self.stochastic = deterministic, stochastic
        self.latent_dim = self.carry_dim = deterministic + stochastic
        self.inputs = nn.Sequential(
            nn.Linear(stochastic + action_dim, deterministic, bias=False), nn.LayerNorm(deterministic), nn.SiLU()
        )
        self.cell = NormGRUCell(deterministic, deterministic)
        self.prior = mlp(deterministic, hidden, 1, outputs)
        self.posterior = mlp(deterministic + embed_dim, hidden, 1, outputs)

    def recur(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R det"]:
        """The next h."""
        h, z = latent.split([self.deterministic, self.stochastic], -1)
        return self.cell(self.inputs(torch.cat([z, action], -1)), h)
