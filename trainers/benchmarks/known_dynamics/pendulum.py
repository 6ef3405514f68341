"""dm_control's pendulum swing-up as a Simulator, with the smooth height of the pole added to its sparse reward."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.readout import OwnReward

MASS, LENGTH, INERTIA = 1.0, 0.5, 0.001  # kg, m, kg m² about the mass
GRAVITY, DAMPING, DT = 9.81, 0.1, 0.02
BOUND = math.cos(math.radians(8))
SHAPING = 0.1  # weight of the height, which tells a planner where up is


class Pendulum(OwnReward):
    """Latents [R, 2]: angle (0 is up) and its speed. repeat: control steps per decision."""

    action_dim = 1

    def __init__(self, *, repeat: int = 2) -> None:
        self.repeat = repeat

    def observe(self, physics: Any) -> Float[Tensor, "1 2"]:
        """The latent of a dm_control physics."""
        return torch.tensor([[*physics.data.qpos, *physics.data.qvel]], dtype=torch.float64)

    def step(self, latent: Float[Tensor, "R 2"], action: Float[Tensor, "R 1"]) -> Float[Tensor, "R 2"]:
        """`repeat` steps of the suite's semi-implicit Euler integrator, which treats damping implicitly."""
        angle, spin = latent.unbind(-1)
        inertia = INERTIA + MASS * LENGTH**2
        for _ in range(self.repeat):
            torque = action[..., 0] + MASS * GRAVITY * LENGTH * angle.sin() - DAMPING * spin
            spin = spin + DT * torque / (inertia + DT * DAMPING)
            angle = angle + DT * spin
        return torch.stack([angle, spin], -1)

    def reward(self, latent: Float[Tensor, "*R 2"]) -> Float[Tensor, "*R"]:
        """1 within eight degrees of upright, and a little for every height below."""
        height = latent[..., 0].cos()
        near = torch.sigmoid((height - BOUND) * 200)
        return self.repeat * (near + SHAPING * height - 0.001 * latent[..., 1].square())
