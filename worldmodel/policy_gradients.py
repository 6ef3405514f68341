"""The score function's way to the gradient of an expected return (5.6), as a surrogate to be differentiated.

It is of J = E[G[0]], the λ-return of the first state of imagined rollouts, and unbiased. So is the pathwise gradient,
that of the mean of `lambda_return(...)[0]` itself, through states and reparameterised actions; and any mixture of both.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def score_function(
    log_prob: Float[Tensor, "H R"],
    returns: Float[Tensor, "H R"],
    baseline: Float[Tensor, "H R"],
    *,
    discount: float | Float[Tensor, "H R"],
    mix: float,
) -> Float[Tensor, ""]:
    """Σ_t (γλ)^t log π(a[t] | s[t]) (G[t] - b(s[t])): nothing is asked of the model's derivatives.

    Args:
        log_prob: of actions that are held still.
        returns: the λ-returns G of the states in which they were taken.
        baseline: any function of these states; it costs no bias and takes away variance.
        discount, mix: those of the returns.
    """
    factor = discount if isinstance(discount, Tensor) else torch.full_like(returns, discount)
    weight = torch.cat([torch.ones_like(returns[:1]), (mix * factor[:-1]).cumprod(0)])
    return ((weight * (returns - baseline)).detach() * log_prob).sum(0).mean()
