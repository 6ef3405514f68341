"""f(s, a) = A s + B a + c by least squares: exact for linear systems, and fitted without a gradient."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.state_dynamics import StateDynamics


class LinearDynamics(StateDynamics):
    """The least-squares solution of all transitions, taken when a fit begins: it needs data.updates_per_episode=0."""

    def __init__(self, *, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.weight = nn.Parameter(torch.zeros(state_dim + action_dim + 1, state_dim))

    def begin_fit(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], following: Float[Tensor, "R D"]
    ) -> None:
        """Solve for A, B and c in float64; of several solutions, the smallest."""
        rows = _rows(state, action).double().cpu()
        solution = torch.linalg.lstsq(rows, following.double().cpu(), driver="gelsd").solution
        with torch.no_grad():
            self.weight.copy_(solution)

    def predict(self, state: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""
        return _rows(state, action) @ self.weight

    def loss(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], following: Float[Tensor, "R D"]
    ) -> Float[Tensor, "R"]:
        """Mean squared error over the state's dimensions, in the states' own units."""
        return (self.predict(state, action) - following).square().mean(-1)


def _rows(state: Tensor, action: Tensor) -> Tensor:
    return torch.cat([state, action, torch.ones_like(action[..., :1])], -1)


make = LinearDynamics
