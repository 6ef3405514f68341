"""One step of the linear-quadratic regulator's backward recursion, with affine and cross terms."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Gains:
    """The optimal policy u = K x + k of one step, and the cost to go ½ xᵀVx + vᵀx before it."""

    K: Float[Tensor, "*R A n"]
    k: Float[Tensor, "*R A"]
    V: Float[Tensor, "*R n n"]
    v: Float[Tensor, "*R n"]


def cost_to_go(
    Q: Float[Tensor, "*R m m"], q: Float[Tensor, "*R m"], K: Float[Tensor, "*R A n"], k: Float[Tensor, "*R A"]
) -> Gains:
    """The cost to go of ½ zᵀQz + qᵀz under u = K x + k, for any K and k."""
    n = K.shape[-1]
    xx, ux, uu = Q[..., :n, :n], Q[..., n:, :n], Q[..., n:, n:]
    V = xx + K.mT @ ux + ux.mT @ K + K.mT @ uu @ K
    v = q[..., :n] + matvec(K.mT, matvec(uu, k) + q[..., n:]) + matvec(ux.mT, k)
    return Gains(K=K, k=k, V=(V + V.mT) / 2, v=v)


def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices [*R O I] times vectors [*R I], whose leading axes may differ as in any product."""
    return (matrix @ vector[..., None])[..., 0]
