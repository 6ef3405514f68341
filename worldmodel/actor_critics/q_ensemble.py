"""Several networks for the value of a latent and an action."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.limits import require_whole
from worldmodel.policies import PolicySpec


class QEnsemble(nn.Module):
    """M heads of one shape over (z, a), each from a start of its own.

    Args:
        spec: what heads are built from.
        members: M, at least 2.
    """

    def __init__(self, spec: PolicySpec, *, members: int) -> None:
        require_whole(members=members, least=2)
        super().__init__()
        self.heads = nn.ModuleList(spec.build_value(spec.latent_dim + spec.action_dim) for _ in range(members))

    def forward(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "M *R"]:
        """Every member's value, in the unit of returns."""
        both = torch.cat([latent, action], -1)
        return torch.stack([head(both) for head in self.heads])

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """The sum of the members' losses."""
        both = torch.cat([latent, action], -1)
        return torch.stack([head.loss(both, target) for head in self.heads]).sum(0)  # type: ignore[operator]
