"""The motion of dm_control's cart and pole, and its derivatives by hand: planners take thousands of both per decision.

The suite's masses, lengths, damping and integrator (Runge-Kutta of order 4 at 100 Hz). States are cart position, pole
angle (0 is up) and their speeds; in here they lie along the last axis but one, [4, R], so that each is contiguous.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CART, POLE, HALF = 1.0, 0.1, 0.5  # kg, kg, m to the pole's centre of mass
GRAVITY, FORCE = 9.81, 10.0  # m/s², N at full action
CART_DAMPING, HINGE_DAMPING = 5e-4, 2e-6
DT = 0.01
STAGES = (DT / 2, DT / 2, DT)  # how far the second to fourth stage of Runge-Kutta look ahead
_MASS, _LEVER = CART + POLE, POLE * HALF
_INERTIA = 0.00942459 + POLE * HALF**2  # kg m², of the pole about its hinge

Array = NDArray[np.floating[Any]]


def move(state: Float[Tensor, "R 4"], action: Float[Tensor, "R"], steps: int) -> Float[Tensor, "R 4"]:
    """The state after `steps` control steps of 10 ms; can be differentiated once."""
    return _Motion.apply(state, action, steps)[0]


class _Motion(Function):
    """Control steps in NumPy, whose calls cost a quarter of torch's on arrays this small."""

    @staticmethod
    def forward(state: Tensor, action: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """States [R, 4] after the steps, and those [steps, 4, R] before each."""
        push, now, before = FORCE * action.numpy(), state.mT.numpy(), []
        for _ in range(steps):
            before.append(now)
            first, second, third, fourth = _speeds(now, push)
            now = now + DT / 6 * (first + fourth + 2 * (second + third))
        return torch.from_numpy(now.T.copy()), torch.from_numpy(np.stack(before))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        """Keep where every step began."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[1], output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        """Slopes [R, 4] and [R] of state and action."""
        action, before = ctx.saved_tensors
        row = torch.cat([slope, torch.zeros_like(slope[:, :1])], 1)[:, None]
        for jacobian in reversed(_Jacobians.apply(before, action).unbind(0)):
            row = row @ jacobian
        return row[:, 0, :4], row[:, 0, 4], None

    @staticmethod
    def vmap(info: Any, in_dims: Any, state: Tensor, action: Tensor, steps: int) -> tuple[Any, Any]:
        """More rows."""
        state, action = _in_front(info, in_dims, state, action)
        after, before = _Motion.apply(state.flatten(0, 1), action.flatten(), steps)
        return (after.unflatten(0, action.shape), before.unflatten(2, action.shape)), (0, 2)


class _Jacobians(Function):
    """[T, R, 5, 5]: of the state after a step and the action, which stays, by those before it: all steps at once."""

    @staticmethod
    def forward(state: Tensor, action: Tensor) -> Tensor:
        """In NumPy too."""
        return torch.from_numpy(_jacobians(state.numpy(), FORCE * action.numpy()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing: these are not differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, state: Tensor, action: Tensor) -> tuple[Tensor, int]:
        """More rows."""
        state, action = _in_front(info, in_dims, state, action)
        jacobians = _Jacobians.apply(state.permute(1, 2, 0, 3).flatten(2), action.flatten())
        return jacobians.unflatten(1, action.shape), 1


def _in_front(info: Any, dims: Sequence[int | None], *arrays: Tensor) -> list[Tensor]:
    """The arrays with what is mapped over first."""
    return [
        x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(arrays, dims, strict=False)
    ]


def _speeds(state: Array, push: Array) -> list[Array]:
    """How fast the state changes at the four stages of a step."""
    speeds = [_derivative(state, push)]
    for part in STAGES:
        speeds.append(_derivative(state + part * speeds[-1], push))
    return speeds


def _derivative(state: Array, push: Array) -> Array:
    """Lagrange's equations of a pole on a cart, solved for both accelerations."""
    angle, speed, spin = state[..., 1, :], state[..., 2, :], state[..., 3, :]
    sine, coupling = np.sin(angle), _LEVER * np.cos(angle)
    force = push - CART_DAMPING * speed + _LEVER * sine * spin * spin
    torque = _LEVER * GRAVITY * sine - HINGE_DAMPING * spin
    determinant = _MASS * _INERTIA - coupling * coupling
    speeds = np.empty_like(state)
    speeds[..., :2, :] = state[..., 2:, :]
    speeds[..., 2, :] = (_INERTIA * force - coupling * torque) / determinant
    speeds[..., 3, :] = (_MASS * torque - coupling * force) / determinant
    return speeds


def _jacobians(state: Array, push: Array) -> Array:
    """[T, R, 5, 5] of one Runge-Kutta step from states [T, 4, R]."""
    speeds = _speeds(state, push)
    stages = [state, *(state + part * speed for part, speed in zip(STAGES, speeds, strict=False))]
    slopes = _slopes(np.stack(stages), push, np.stack(speeds))
    total = change = slopes[0]
    for slope, part, weight in zip(slopes[1:], STAGES, (2, 2, 1), strict=True):
        change = slope + part * (slope @ change)
        total = total + weight * change
    return np.eye(5, dtype=state.dtype) + DT / 6 * total


def _slopes(state: Array, push: Array, speeds: Array) -> Array:
    """Derivatives [..., R, 5, 5] of `_derivative`, and of an action that does not change, by state and action."""
    angle, speed, spin = state[..., 1, :], state[..., 2, :], state[..., 3, :]
    coupling, spread = _LEVER * np.cos(angle), _LEVER * np.sin(angle)
    force = push - CART_DAMPING * speed + spread * spin * spin
    torque = GRAVITY * spread - HINGE_DAMPING * spin
    # by the angle, which moves coupling, determinant, force and torque
    widening, force_angle, torque_angle = 2 * coupling * spread, coupling * spin * spin, GRAVITY * coupling
    along = _INERTIA * force_angle + spread * torque - coupling * torque_angle - speeds[..., 2, :] * widening
    turn = _MASS * torque_angle + spread * force - coupling * force_angle - speeds[..., 3, :] * widening
    slopes = np.zeros((*angle.shape, 5, 5), state.dtype)
    slopes[..., 0, 2] = slopes[..., 1, 3] = 1
    slopes[..., 2, 1], slopes[..., 3, 1] = along, turn
    slopes[..., 2, 2], slopes[..., 3, 2] = -_INERTIA * CART_DAMPING, CART_DAMPING * coupling
    slopes[..., 2, 3] = _INERTIA * 2 * spread * spin + HINGE_DAMPING * coupling
    slopes[..., 3, 3] = -_MASS * HINGE_DAMPING - coupling * 2 * spread * spin
    slopes[..., 2, 4], slopes[..., 3, 4] = _INERTIA * FORCE, -FORCE * coupling
    slopes[..., 2:4, 1:] /= (_MASS * _INERTIA - coupling * coupling)[..., None, None]
    return slopes
