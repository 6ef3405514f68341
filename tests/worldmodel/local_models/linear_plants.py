"""Random linear plants with quadratic costs, and policies for them, in float64."""

import torch
from torch import Tensor

from worldmodel.local_models.linear_gaussian import Gaussian, LinearGaussianDynamics, LinearGaussianPolicy
from worldmodel.local_models.quadratic_cost import QuadraticCost

B, H, N, A = 3, 6, 4, 2


def double(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(*shape: int, seed: int) -> Tensor:
    root = double(*shape, shape[-1], seed=seed)
    return root @ root.mT / shape[-1] + 0.2 * torch.eye(shape[-1], dtype=torch.float64)


def dynamics(seed: int = 0) -> LinearGaussianDynamics:
    F = torch.cat([0.5 * double(B, H, N, N, seed=seed), double(B, H, N, A, seed=seed + 1)], -1)
    return LinearGaussianDynamics(F, 0.3 * double(B, H, N, seed=seed + 2), 0.1 * positive(B, H, N, seed=seed + 3))


def cost(seed: int = 10) -> QuadraticCost:
    return QuadraticCost(
        positive(B, H, N + A, seed=seed),
        double(B, H, N + A, seed=seed + 1),
        positive(B, N, seed=seed + 2),
        double(B, N, seed=seed + 3),
    )


def policy(seed: int = 20) -> LinearGaussianPolicy:
    K, k = 0.3 * double(B, H, A, N, seed=seed), double(B, H, A, seed=seed + 1)
    return LinearGaussianPolicy(K, k, positive(B, H, A, seed=seed + 2))


def start(seed: int = 30) -> Gaussian:
    return Gaussian(double(B, N, seed=seed), 0.5 * positive(B, N, seed=seed + 1))


def simulate(
    plant: LinearGaussianDynamics, controller: LinearGaussianPolicy, first: Gaussian, count: int
) -> tuple[Tensor, Tensor]:
    """States [B N H+1 n] and controls [B N H A] of `count` simulated trajectories."""
    state = first.mean[:, None] + double(B, count, N, seed=40) @ torch.linalg.cholesky(first.covariance).mT
    states, controls = [state], []
    for t in range(H):
        controls.append(controller.sample(state, double(B, count, A, seed=50 + t), t))
        shake = double(B, count, N, seed=60 + t) @ torch.linalg.cholesky(plant.noise[:, t]).mT
        state = torch.cat([state, controls[-1]], -1) @ plant.F[:, t].mT + plant.f[:, t, None] + shake
        states.append(state)
    return torch.stack(states, 2), torch.stack(controls, 2)
