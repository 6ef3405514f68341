"""The reward of dm_control's cartpole_swingup, from its definition: upright, centred, slow and with little force."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.rewards import Reward

_GAUSSIAN = -math.log(0.1)  # the suite's tolerance falls to a tenth at its margin


class CartpoleSwingup(Reward):
    """Of observations (x, cos, sin, speed, spin); between control steps the reward is taken as constant."""

    def __init__(self, *, state_dim: int, action_dim: int, repeat: int) -> None:
        super().__init__()
        if (state_dim, action_dim) != (5, 1):
            raise ValueError(f"agent.reward: expected 5 numbers a state and 1 an action, got {state_dim}, {action_dim}")
        self.repeat = repeat

    def forward(self, state: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """Between 0 and `repeat`."""
        x, cosine, _, _, spin = state.unbind(-1)
        upright = (cosine.clamp(-1, 1) + 1) / 2
        centred = (1 + torch.exp(-_GAUSSIAN * (x / 2).square())) / 2
        slow = (1 + torch.exp(-_GAUSSIAN * (spin / 5).square())) / 2
        gentle = (5 - action[..., 0].square()) / 5
        return self.repeat * upright * centred * slow * gentle

    def loss(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], reward: Float[Tensor, "R"]
    ) -> Float[Tensor, "R"]:
        """Nothing is learned."""
        return torch.zeros_like(reward)


make = CartpoleSwingup
