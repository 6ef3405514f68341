"""Time-varying linear-Gaussian dynamics and policies, and the Gaussian states that both together lead to.

Coordinates are absolute, not deviations from a nominal path: models and policies of different paths can be compared.
Everything is batched over starts and meant for float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.planners.lqr import matvec
from worldmodel.records import choose


@dataclass(frozen=True, slots=True)
class LinearGaussianDynamics:
    """x[t+1] ~ N(F[t] (x[t], u[t]) + f[t], noise[t]), with m = n + A."""

    F: Float[Tensor, "B H n m"]
    f: Float[Tensor, "B H n"]
    noise: Float[Tensor, "B H n n"]


@dataclass(frozen=True, slots=True)
class LinearGaussianPolicy:
    """u[t] ~ N(K[t] x[t] + k[t], covariance[t])."""

    K: Float[Tensor, "B H A n"]
    k: Float[Tensor, "B H A"]
    covariance: Float[Tensor, "B H A A"]

    def mean(self, states: Float[Tensor, "B *N H n"]) -> Float[Tensor, "B *N H A"]:
        """The mean control at every step, of states at these steps."""
        more = states.ndim - 3
        K, k = (x.reshape(len(x), *[1] * more, *x.shape[1:]) for x in (self.K, self.k))
        return matvec(K, states) + k

    def sample(self, state: Float[Tensor, "B N n"], noise: Float[Tensor, "B N A"], t: int) -> Float[Tensor, "B N A"]:
        """Controls of step t from standard normal noise."""
        root = cholesky(self.covariance[:, t])
        return state @ self.K[:, t].mT + self.k[:, t, None] + noise @ root.mT

    def where_finite(self, other: "LinearGaussianPolicy") -> "LinearGaussianPolicy":
        """This policy, the other one for starts of which it is not finite."""
        parts = (self.K, self.k, self.covariance)
        finite = torch.stack([x.flatten(1).isfinite().all(1) for x in parts]).all(0)
        return choose(finite, self, other)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """States of every start as a Gaussian."""

    mean: Float[Tensor, "B n"]
    covariance: Float[Tensor, "B n n"]

    @classmethod
    def point(cls, state: Float[Tensor, "B n"]) -> "Gaussian":
        """A start that is known."""
        return cls(state, state.new_zeros(*state.shape, state.shape[-1]))


@dataclass(frozen=True, slots=True)
class StateMarginals:
    """Mean and covariance of the states at every step, x[0] to x[H]."""

    mean: Float[Tensor, "B points n"]
    covariance: Float[Tensor, "B points n n"]


def forward_pass(dynamics: LinearGaussianDynamics, policy: LinearGaussianPolicy, start: Gaussian) -> StateMarginals:
    """The states that a policy leads to, by propagating mean and covariance."""
    n = start.mean.shape[-1]
    A, B = dynamics.F[..., :n], dynamics.F[..., n:]
    closed = A + B @ policy.K
    drift = matvec(B, policy.k) + dynamics.f
    spread = B @ policy.covariance @ B.mT + dynamics.noise
    mean, covariance = start.mean, start.covariance
    means, covariances = [mean], [covariance]
    for t in range(dynamics.F.shape[1]):
        mean = matvec(closed[:, t], mean) + drift[:, t]
        covariance = closed[:, t] @ covariance @ closed[:, t].mT + spread[:, t]
        means.append(mean)
        covariances.append(covariance)
    return StateMarginals(torch.stack(means, 1), torch.stack(covariances, 1))


def policy_kl(p: LinearGaussianPolicy, q: LinearGaussianPolicy, states: StateMarginals) -> Float[Tensor, "B H"]:
    """E KL(p(u | x[t]) || q(u | x[t])) in nats at every step, over the states that p leads to.

    Summed over t it is the divergence of whole trajectories: the dynamics cancel.
    """
    mean, covariance = states.mean[:, :-1], states.covariance[:, :-1]
    root = cholesky(q.covariance)
    K, k = p.K - q.K, p.k - q.k
    shift = matvec(K, mean) + k
    second = p.covariance + K @ covariance @ K.mT + shift[..., None] * shift[..., None, :]
    trace = torch.cholesky_solve(second, root).diagonal(dim1=-2, dim2=-1).sum(-1)
    log_volume = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - torch.linalg.slogdet(p.covariance)[1]
    return 0.5 * (trace - p.k.shape[-1] + log_volume)


def cholesky(matrix: Float[Tensor, "*R A A"]) -> Float[Tensor, "*R A A"]:
    """Lower triangular roots; NaN, not an error, of matrices that are not positive definite."""
    root, failed = torch.linalg.cholesky_ex(matrix)
    return torch.where((failed > 0)[..., None, None], torch.nan, root)
