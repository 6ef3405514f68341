"""Derivatives of a Simulator along paths: of its steps, and of the discounted cost of every arrival."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from worldmodel.interfaces import Simulator

_HUGE, _LARGEST = 1e12, 1e30


@dataclass(frozen=True, slots=True)
class Expansion:
    """Derivatives along paths of H steps, with m = n + A.

    Args:
        transition: of every next state by state and action.
        slope: of the discounted cost (minus the reward) of every arrival, the last with the value that follows.
        curvature: its Hessian, made positive semidefinite.
    """

    transition: Float[Tensor, "B H n m"]
    slope: Float[Tensor, "B H n"]
    curvature: Float[Tensor, "B H n n"]


def expand(simulator: Simulator, states: Float[Tensor, "B points n"], actions: Float[Tensor, "B H A"]) -> Expansion:
    """The derivatives along paths of H + 1 points; those that are not finite are 0."""
    n, horizon = states.shape[-1], actions.shape[1]

    def step(z: Tensor) -> Tensor:
        return simulator.step(z[None, :n], z[None, n:])[0]

    def reward(x: Tensor) -> Tensor:
        return -simulator.reward(x[None])[0]

    def value(x: Tensor) -> Tensor:
        return -simulator.value(x[None])[0]

    z = torch.cat([states[:, :-1], actions], -1)
    arrivals, weights = states[:, 1:], discounts(simulator, horizon, states)
    slope = vmap(vmap(jacrev(reward)))(arrivals) * weights[:, None]
    curvature = vmap(vmap(jacrev(jacrev(reward))))(arrivals) * weights[:, None, None]
    last, discount = arrivals[:, -1], simulator.discount**horizon
    slope[:, -1] += discount * vmap(jacrev(value))(last)
    curvature[:, -1] += discount * vmap(jacrev(jacrev(value)))(last)
    return Expansion(vmap(vmap(jacrev(step)))(z).nan_to_num(), slope.nan_to_num(), psd(curvature.nan_to_num()))


def discounts(simulator: Simulator, horizon: int, like: Tensor) -> Float[Tensor, "H"]:
    """What the reward of every step weighs, γ^t."""
    return simulator.discount ** torch.arange(horizon, dtype=like.dtype, device=like.device)


def psd(matrix: Float[Tensor, "*R n n"]) -> Float[Tensor, "*R n n"]:
    """The nearest positive semidefinite matrices."""
    size = matrix.abs().amax((-2, -1), keepdim=True)
    # of a model that lies, sums overflow, and eigenvalues do not converge
    scale = torch.where(size > _HUGE, size, 1.0)
    matrix = matrix / scale
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp_min(0)[..., None, :]) @ vectors.mT * scale.clamp_max(_LARGEST)
