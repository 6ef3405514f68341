"""f(s, a) as a perceptron that predicts the change of an observed state."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.dynamics.observed_state import ObservedState
from worldmodel.limits import require_whole
from worldmodel.nets import zero_last


class StateMLP(ObservedState):
    """Inputs and outputs have zero mean and unit scale, measured anew before every round of updates.

    Args:
        embed_dim, action_dim: numbers in a state and in an action.
        hidden, layers: width and number of the hidden layers.
    """

    mean: Tensor
    std: Tensor
    change_std: Tensor

    def __init__(self, *, embed_dim: int, action_dim: int, hidden: int = 128, layers: int = 2) -> None:
        require_whole(hidden=hidden, layers=layers)
        super().__init__(embed_dim=embed_dim, action_dim=action_dim)
        sizes = [embed_dim + action_dim] + [hidden] * layers
        # no norms: one behind the first layer would hide how far a state of a few numbers is from the mean
        blocks = [block for n, m in pairwise(sizes) for block in (nn.Linear(n, m), nn.SiLU())]
        self.net = zero_last(nn.Sequential(*blocks, nn.Linear(sizes[-1], embed_dim)))
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("std", torch.ones(embed_dim))
        self.register_buffer("change_std", torch.ones(embed_dim))

    def fit(self, state: Float[Tensor, "R S"], action: Float[Tensor, "R A"], following: Float[Tensor, "R S"]) -> None:
        """Measure the scales of states and of their changes."""
        self.mean.copy_(state.mean(0))
        std = state.std(0)
        # what never changed keeps its own unit: by 1e-6 of one, its first change would be all there is
        self.std.copy_(torch.where(std > 1e-6 * state.abs().amax(0), std, 1.0))
        self.change_std.copy_((following - state).std(0).clamp_min(1e-6))

    def step(self, state: Float[Tensor, "*R S"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R S"]:
        return state + self.change_std * self._change(state, action)

    def error(
        self, state: Float[Tensor, "*R S"], action: Float[Tensor, "*R A"], following: Float[Tensor, "*R S"]
    ) -> Float[Tensor, "*R"]:
        """Mean squared error over the state's dimensions, in units of the changes' std."""
        target = (following - state) / self.change_std
        return (self._change(state, action) - target).square().mean(-1)

    def _change(self, state: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([(state - self.mean) / self.std, action], -1))


make = StateMLP
