"""dm_control's cartpole swing-up as a Simulator: a planner that fails here fails by itself, not by its model.

Its motion is that of cart_and_pole.py; the ends of the rail, which a good plan does not touch, are left out.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.cart_and_pole import move
from trainers.benchmarks.known_dynamics.readout import OwnReward

_GAUSSIAN = -math.log(0.1)  # the suite's tolerance falls to a tenth at its margin


class Cartpole(OwnReward):
    """Latents [R, 5]: cart position, pole angle (0 is up), their speeds, and the last action.

    repeat: control steps per decision; its reward is `repeat` times that of the arriving state.
    """

    action_dim = 1

    def __init__(self, *, repeat: int = 4) -> None:
        self.repeat = repeat

    def observe(self, physics: Any) -> Float[Tensor, "1 5"]:
        """The latent of a dm_control physics."""
        state = [*physics.data.qpos, *physics.data.qvel, *physics.data.ctrl]
        return torch.tensor([state], dtype=torch.float64)

    def step(self, latent: Float[Tensor, "R 5"], action: Float[Tensor, "R 1"]) -> Float[Tensor, "R 5"]:
        """`repeat` control steps."""
        return torch.cat([move(latent[:, :4], action[:, 0], self.repeat), action], 1)

    def reward(self, latent: Float[Tensor, "*R 5"]) -> Float[Tensor, "*R"]:
        """Upright, centred, slow and with little force."""
        x, angle, _, spin, action = latent.unbind(-1)
        upright = (angle.cos() + 1) / 2
        centred = (1 + torch.exp(-_GAUSSIAN * (x / 2).square())) / 2
        gentle = (5 - action.square()) / 5
        slow = (1 + torch.exp(-_GAUSSIAN * (spin / 5).square())) / 2
        return self.repeat * upright * gentle * slow * centred
