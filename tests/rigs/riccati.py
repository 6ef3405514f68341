"""The linear-quadratic regulator step by step, which planners and local policies are held against."""

import torch
from torch import Tensor

from worldmodel.planners.lqr import Gains, cost_to_go, matvec


def regulator(transition: Tensor, drift: Tensor, cost: Tensor, slope: Tensor, V: Tensor, v: Tensor) -> Gains:
    """One step back in time for x' = transition z + drift and the cost ½ zᵀ C z + dᵀ z, with z = (x, u).

    V, v: cost to go after the step.
    """
    n = transition.shape[-2]
    Q = cost + transition.mT @ V @ transition
    q = slope + matvec(transition.mT, matvec(V, drift) + v)
    K, k = -torch.linalg.solve(Q[n:, n:], Q[n:, :n]), -torch.linalg.solve(Q[n:, n:], q[n:])
    return cost_to_go(Q, q, K, k)


def infinite_horizon(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Gains:
    """The stationary regulator of ½ Σ xᵀQx + uᵀRu: the recursion repeated until V no longer changes."""
    transition, cost = torch.cat([A, B], 1), torch.block_diag(Q, R)
    zero, slope = A.new_zeros(len(A)), A.new_zeros(len(cost))
    gains = regulator(transition, zero, cost, slope, Q, zero)
    for _ in range(100_000):
        before, gains = gains, regulator(transition, zero, cost, slope, gains.V, zero)
        if (gains.V - before.V).abs().max() <= 1e-12 * gains.V.abs().max():
            break
    return gains
