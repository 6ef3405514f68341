"""f(s, a) as a perceptron that predicts how the state changes."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.nets import zero_last
from worldmodel.state_dynamics import StateDynamics


class MLPDynamics(StateDynamics):
    """s' = s + σ · net((s - μ) / ς, a): inputs and changes have unit scale, measured when a fit begins."""

    mean: Tensor
    std: Tensor
    change_std: Tensor

    def __init__(self, *, state_dim: int, action_dim: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.net = zero_last(perceptron(state_dim + action_dim, hidden, layers, state_dim))
        self.register_buffer("mean", torch.zeros(state_dim))
        self.register_buffer("std", torch.ones(state_dim))
        self.register_buffer("change_std", torch.ones(state_dim))

    def begin_fit(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], following: Float[Tensor, "R D"]
    ) -> None:
        """Measure the scales of states and of their changes."""
        self.mean.copy_(state.mean(0))
        self.std.copy_(state.std(0).clamp_min(1e-6))
        self.change_std.copy_((following - state).std(0).clamp_min(1e-6))

    def predict(self, state: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""
        return state + self.change_std * self._change(state, action)

    def loss(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], following: Float[Tensor, "R D"]
    ) -> Float[Tensor, "R"]:
        """Mean squared error over the state's dimensions, in units of the changes' std."""
        target = (following - state) / self.change_std
        return (self._change(state, action) - target).square().mean(-1)

    def _change(self, state: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([(state - self.mean) / self.std, action], -1))  # type: ignore[no-any-return]


def perceptron(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """`layers` blocks (linear, SiLU) and a linear output layer, with biases and without norms.

    A norm behind the first layer would hide how far a state of a few numbers is from the mean.
    """
    sizes = [inputs] + [hidden] * layers
    blocks = [block for n, m in pairwise(sizes) for block in (nn.Linear(n, m), nn.SiLU())]
    return nn.Sequential(*blocks, nn.Linear(sizes[-1], outputs))


make = MLPDynamics
