"""Costs that are quadratic in states and controls, and the log-probability of a policy as one."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.local_models.linear_gaussian import LinearGaussianPolicy, StateMarginals
from worldmodel.planners.lqr import matvec


@dataclass(frozen=True, slots=True)
class QuadraticCost:
    """Σ_t ½ zᵀ C[t] z + c[t]ᵀ z with z = (x[t], u[t]), plus ½ xᵀ C_H x + c_Hᵀ x of the last state; no constants."""

    curvature: Float[Tensor, "B H m m"]
    slope: Float[Tensor, "B H m"]
    last_curvature: Float[Tensor, "B n n"]
    last_slope: Float[Tensor, "B n"]

    def __add__(self, other: "QuadraticCost") -> "QuadraticCost":
        """The sum of two costs."""
        return QuadraticCost(
            self.curvature + other.curvature,
            self.slope + other.slope,
            self.last_curvature + other.last_curvature,
            self.last_slope + other.last_slope,
        )

    def times(self, weight: Float[Tensor, "B"]) -> "QuadraticCost":
        """The cost of every start, weighted."""
        one, two, three = weight[:, None], weight[:, None, None], weight[:, None, None, None]
        return QuadraticCost(self.curvature * three, self.slope * two, self.last_curvature * two, self.last_slope * one)


def expected_cost(cost: QuadraticCost, policy: LinearGaussianPolicy, states: StateMarginals) -> Float[Tensor, "B"]:
    """The mean cost of the trajectories of a policy, whose states are given."""
    x, S, K = states.mean[:, :-1], states.covariance[:, :-1], policy.K
    z = torch.cat([x, policy.mean(x)], -1)
    upper, lower = torch.cat([S, S @ K.mT], -1), torch.cat([K @ S, K @ S @ K.mT + policy.covariance], -1)
    along = _expectation(cost.curvature, cost.slope, z, torch.cat([upper, lower], -2)).sum(1)
    return along + _expectation(cost.last_curvature, cost.last_slope, states.mean[:, -1], states.covariance[:, -1])


def negative_log_prob(policy: LinearGaussianPolicy) -> QuadraticCost:
    """-log p(u[t] | x[t]) but for its constant: small where controls are those of the policy."""
    B, _, A, n = policy.K.shape
    precision = torch.linalg.inv(policy.covariance)
    towards = torch.cat([-policy.K, torch.eye(A).to(policy.K).expand(*policy.K.shape[:2], A, A)], -1)
    curvature = towards.mT @ precision @ towards
    slope = -matvec(towards.mT @ precision, policy.k)
    return QuadraticCost(curvature, slope, policy.K.new_zeros(B, n, n), policy.K.new_zeros(B, n))


def _expectation(curvature: Tensor, slope: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    second = covariance + mean[..., None] * mean[..., None, :]
    return 0.5 * (curvature * second).sum((-2, -1)) + (slope * mean).sum(-1)
