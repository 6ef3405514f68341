"""The linear-quadratic regulator with entropy: the stochastic policy that is optimal for cost minus entropy."""

import torch

from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics, LinearGaussianPolicy, cholesky
from worldmodel.local_models.quadratic_cost import QuadraticCost
from worldmodel.planners.lqr import cost_to_go, matvec


def max_ent_lqr(dynamics: LinearGaussianDynamics, cost: QuadraticCost) -> LinearGaussianPolicy:
    """The minimiser of E[cost] - Σ_t H(p(u[t] | x[t])): u[t] ~ N(K x + k, Q_uu⁻¹), with the regulator's K and k.

    Levine and Koltun, Guided Policy Search (2013), section 4.

    Args:
        dynamics: their noise changes nothing.
        cost: in nats.

    Returns:
        The policy; NaN for starts whose cost is not positive definite in the controls.
    """
    n = dynamics.F.shape[-2]
    V, v = cost.last_curvature, cost.last_slope
    steps = []
    for t in reversed(range(dynamics.F.shape[1])):
        F, f = dynamics.F[:, t], dynamics.f[:, t]
        Q = cost.curvature[:, t] + F.mT @ V @ F
        q = cost.slope[:, t] + matvec(F.mT, matvec(V, f) + v)
        root = cholesky(Q[:, n:, n:])
        K = -torch.cholesky_solve(Q[:, n:, :n], root)
        k = -torch.cholesky_solve(q[:, n:, None], root)[..., 0]
        gains = cost_to_go(Q, q, K, k)
        V, v = gains.V, gains.v
        steps.append((K, k, torch.cholesky_inverse(root)))
    return LinearGaussianPolicy(*(torch.stack(parts[::-1], 1) for parts in zip(*steps, strict=True)))
