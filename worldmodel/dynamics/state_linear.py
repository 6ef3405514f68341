"""f(s, a) = A s + B a + c by least squares: exact for linear systems, and fitted without a gradient."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.dynamics.observed_state import ObservedState


class StateLinear(ObservedState):
    """The least-squares solution of all transitions, found anew before every round of updates, which do not move it."""

    def __init__(self, *, embed_dim: int, action_dim: int) -> None:
        super().__init__(embed_dim=embed_dim, action_dim=action_dim)
        weight = torch.zeros(embed_dim + action_dim + 1, embed_dim)
        self.weight = nn.Parameter(weight, requires_grad=False)  # [A B c]ᵀ

    def fit(self, state: Float[Tensor, "R S"], action: Float[Tensor, "R A"], following: Float[Tensor, "R S"]) -> None:
        """Solve for A, B and c in float64; of several solutions, the smallest."""
        rows = _rows(state, action).double().cpu()
        self.weight.copy_(torch.linalg.lstsq(rows, following.double().cpu(), driver="gelsd").solution)

    def step(self, state: Float[Tensor, "*R S"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R S"]:
        return _rows(state, action) @ self.weight

    def error(
        self, state: Float[Tensor, "*R S"], action: Float[Tensor, "*R A"], following: Float[Tensor, "*R S"]
    ) -> Float[Tensor, "*R"]:
        """Mean squared error over the state's dimensions, in the states' own units."""
        return (self.step(state, action) - following).square().mean(-1)


def _rows(state: Tensor, action: Tensor) -> Tensor:
    return torch.cat([state, action, torch.ones_like(action[..., :1])], -1)


make = StateLinear
