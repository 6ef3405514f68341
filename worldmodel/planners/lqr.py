"""Finite-horizon linear-quadratic regulator: the backward recursion of Riccati, with affine and cross terms."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Gains:
    """The optimal policy u = K x + k of one step, and the cost to go ½ xᵀVx + vᵀx before it."""

    K: Float[Tensor, "*R A n"]
    k: Float[Tensor, "*R A"]
    V: Float[Tensor, "*R n n"]
    v: Float[Tensor, "*R n"]


def regulator(
    transition: Float[Tensor, "*R n m"],
    drift: Float[Tensor, "*R n"],
    cost: Float[Tensor, "*R m m"],
    slope: Float[Tensor, "*R m"],
    V: Float[Tensor, "*R n n"],
    v: Float[Tensor, "*R n"],
) -> Gains:
    """One step back in time for x' = [A B] z + drift and the cost ½ zᵀ C z + dᵀ z, with z = (x, u), m = n + A.

    V, v: cost to go after the step. C must be positive definite in u together with what follows.
    """
    n = transition.shape[-2]
    Q = cost + transition.mT @ V @ transition
    q = slope + _apply(transition.mT, _apply(V, drift) + v)
    factor = torch.linalg.cholesky(Q[..., n:, n:])
    K = -torch.cholesky_solve(Q[..., n:, :n], factor)
    k = -torch.cholesky_solve(q[..., n:, None], factor)[..., 0]
    return cost_to_go(Q, q, K, k)


def cost_to_go(
    Q: Float[Tensor, "*R m m"], q: Float[Tensor, "*R m"], K: Float[Tensor, "*R A n"], k: Float[Tensor, "*R A"]
) -> Gains:
    """The cost to go of ½ zᵀQz + qᵀz under u = K x + k, for any K and k."""
    n = K.shape[-1]
    xx, ux, uu = Q[..., :n, :n], Q[..., n:, :n], Q[..., n:, n:]
    V = xx + K.mT @ ux + ux.mT @ K + K.mT @ uu @ K
    v = q[..., :n] + _apply(K.mT, _apply(uu, k) + q[..., n:]) + _apply(ux.mT, k)
    return Gains(K=K, k=k, V=(V + V.mT) / 2, v=v)


def infinite_horizon(
    A: Float[Tensor, "n n"],
    B: Float[Tensor, "n A"],
    Q: Float[Tensor, "n n"],
    R: Float[Tensor, "A A"],
    *,
    tolerance: float = 1e-12,
    iterations: int = 100_000,
) -> Gains:
    """The stationary regulator of ½ Σ xᵀQx + uᵀRu: the recursion repeated until V changes by less than `tolerance`."""
    transition, cost = torch.cat([A, B], 1), torch.block_diag(Q, R)
    zero, slope = A.new_zeros(len(A)), A.new_zeros(len(cost))
    gains = regulator(transition, zero, cost, slope, Q, zero)
    for _ in range(iterations):
        before, gains = gains, regulator(transition, zero, cost, slope, gains.V, zero)
        if (gains.V - before.V).abs().max() <= tolerance * gains.V.abs().max():
            break
    return gains


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
