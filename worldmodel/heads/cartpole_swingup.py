"""The reward of dm_control's cartpole_swingup, from its definition: upright, centred, slow and with little force."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.errors import BadValue
from worldmodel.heads.head import Head

_GAUSSIAN = -math.log(0.1)  # the suite's tolerance falls to a tenth at its margin


class CartpoleSwingup(Head):
    """Read off latents of observed states: (x, cos, sin, speed, spin) and the action; nothing is learned.

    Args:
        latent_dim: 6, BadValue otherwise.
        scale: control steps per decision, over which the environment sums; between them the reward is taken as
            constant.
    """

    def __init__(self, *, latent_dim: int, scale: float) -> None:
        super().__init__()
        if latent_dim != 6:
            raise BadValue(
                f"agent.heads.name: expected another for latents of {latent_dim} numbers, got cartpole_swingup's"
            )
        self.net, self.scale = nn.Sequential(), scale

    def read(self, outputs: Float[Tensor, "*R 6"]) -> Float[Tensor, "*R"]:
        """Between 0 and `scale`."""
        x, cosine, _, _, spin, action = outputs.unbind(-1)
        upright = (cosine.clamp(-1, 1) + 1) / 2
        centred = (1 + torch.exp(-_GAUSSIAN * (x / 2).square())) / 2
        slow = (1 + torch.exp(-_GAUSSIAN * (spin / 5).square())) / 2
        gentle = (5 - action.square()) / 5
        return self.scale * upright * centred * slow * gentle

    def loss(self, latent: Float[Tensor, "*R 6"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        return torch.zeros_like(target)


make = CartpoleSwingup
