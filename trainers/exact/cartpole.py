"""dm_control's cartpole swing-up as a Simulator: a planner that fails here fails by itself, not by its model.

The suite's masses, lengths, damping and integrator (Runge-Kutta of order 4 at 100 Hz); the ends of the rail, which a
good plan does not touch, are left out.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise

CART, POLE, HALF = 1.0, 0.1, 0.5  # kg, kg, m to the pole's centre of mass
INERTIA = 0.00942459  # kg m², of the pole about its centre of mass
GRAVITY, FORCE = 9.81, 10.0  # m/s², N at full action
CART_DAMPING, HINGE_DAMPING = 5e-4, 2e-6
DT = 0.01
_GAUSSIAN = -math.log(0.1)  # the suite's tolerance falls to a tenth at its margin


class Cartpole:
    """Latents [R, 5]: cart position, pole angle (0 is up), their speeds, and the last action.

    repeat: control steps per decision; its reward is `repeat` times that of the arriving state.
    """

    action_dim = 1

    def __init__(self, *, repeat: int = 4, discount: float = 1.0) -> None:
        self.repeat, self.discount = repeat, discount

    def observe(self, physics: Any) -> Float[Tensor, "1 5"]:
        """The latent of a dm_control physics."""
        state = [*physics.data.qpos, *physics.data.qvel, *physics.data.ctrl]
        return torch.tensor([state], dtype=torch.float64)

    def step(self, latent: Float[Tensor, "R 5"], action: Float[Tensor, "R 1"]) -> Float[Tensor, "R 5"]:
        """`repeat` control steps."""
        state = latent[..., :4]
        for _ in range(self.repeat):
            state = _runge_kutta(state, action[..., 0])
        return torch.cat([state, action], -1)

    def reward(self, latent: Float[Tensor, "*R 5"]) -> Float[Tensor, "*R"]:
        """Upright, centred, slow and with little force."""
        x, angle, _, spin, action = latent.unbind(-1)
        upright = (angle.cos() + 1) / 2
        centred = (1 + torch.exp(-_GAUSSIAN * (x / 2).square())) / 2
        gentle = (5 - action.square()) / 5
        slow = (1 + torch.exp(-_GAUSSIAN * (spin / 5).square())) / 2
        return self.repeat * upright * gentle * slow * centred

    def value(self, latent: Float[Tensor, "*R 5"]) -> Float[Tensor, "*R"]:
        """Nothing is known of what follows."""
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Float[Tensor, "R 5"], generator: Noise) -> None:
        """There is no policy."""
        return


def _runge_kutta(state: Tensor, action: Tensor) -> Tensor:
    one = _derivative(state, action)
    two = _derivative(state + DT / 2 * one, action)
    three = _derivative(state + DT / 2 * two, action)
    four = _derivative(state + DT * three, action)
    return state + DT / 6 * (one + 2 * two + 2 * three + four)


def _derivative(state: Tensor, action: Tensor) -> Tensor:
    """Lagrange's equations of a pole on a cart, solved for both accelerations."""
    _, angle, speed, spin = state.unbind(-1)
    sine, cosine, lever = angle.sin(), angle.cos(), POLE * HALF
    force = FORCE * action - CART_DAMPING * speed + lever * spin.square() * sine
    torque = lever * GRAVITY * sine - HINGE_DAMPING * spin
    mass, inertia, coupling = CART + POLE, INERTIA + POLE * HALF**2, lever * cosine
    determinant = mass * inertia - coupling.square()
    return torch.stack(
        [
            speed,
            spin,
            (inertia * force - coupling * torque) / determinant,
            (mass * torque - coupling * force) / determinant,
        ],
        -1,
    )
