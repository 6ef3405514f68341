"""r(s, a) as a regression, for tasks whose reward is not written down here."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.nets import zero_last
from worldmodel.rewards import Reward
from worldmodel.state_dynamics.mlp import perceptron


class LearnedReward(Reward):
    """A perceptron on a state and the action that led to it, in units of `repeat`."""

    def __init__(self, *, state_dim: int, action_dim: int, repeat: int, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.net, self.repeat = zero_last(perceptron(state_dim + action_dim, hidden, layers, 1)), repeat

    def forward(self, state: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """In the environment's unit."""
        return self.repeat * self.net(torch.cat([state, action], -1))[..., 0]  # type: ignore[no-any-return]

    def loss(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], reward: Float[Tensor, "R"]
    ) -> Float[Tensor, "R"]:
        """Squared error in units of repeat²."""
        return ((self(state, action) - reward) / self.repeat).square()


make = LearnedReward
