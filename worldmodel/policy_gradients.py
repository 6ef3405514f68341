"""Gradients of an expected return: by the score function (5.6), and through imagined steps, watched there (5.5.1).

Of J = E[G[0]], the λ-return of the first state of imagined rollouts, the score function's is unbiased. So is the
pathwise gradient, that of the mean of `lambda_return(...)[0]` itself, through states and reparameterised actions; and
any mixture of both.
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


class StepGradients:
    """Watches δ_t = dJ_t / ds_t of H imagined arrivals, J_t being the return from there on, and may bound it.

    Args:
        horizon: H.
        discount: γ, so that δ_t counts in rewards of its own time.
        clip: δ_t's largest norm in each row; None for any.
        detach_every: after so many steps no gradient passes; None for all.
    """

    def __init__(
        self, horizon: int, *, discount: float = 1.0, clip: float | None = None, detach_every: int | None = None
    ) -> None:
        self.discount, self.clip, self.detach_every = discount, clip, detach_every
        self._horizon, self._norms = horizon, torch.full((horizon,), torch.nan)

    def passed_on(self, k: int, state: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        """The state after k steps as the next one is to start from: gradients that come back are watched and bounded.

        Of J, the mean over the R rows.
        """
        if not state.requires_grad:
            return state
        if self._norms.device != state.device:
            self._norms = torch.full((self._horizon,), torch.nan, device=state.device)
        state.register_hook(lambda gradient: self._watch(k, gradient))
        return state.detach() if self.detach_every is not None and k % self.detach_every == 0 else state

    def report(self) -> dict[str, Float[Tensor, ""]]:
        """`policy/delta_norm_t`, the mean over rows of ‖δ_t‖ after t steps; NaN until the backward pass."""
        return {f"policy/delta_norm_{k + 1}": norm for k, norm in enumerate(self._norms)}

    @torch.no_grad()
    def _watch(self, k: int, gradient: Tensor) -> Tensor | None:
        scale = len(gradient) / self.discount ** (k - 1)
        norm = scale * gradient.float().norm(dim=-1, keepdim=True)
        self._norms[k - 1] = norm.mean()
        if self.clip is None:
            return None
        return gradient * (self.clip / norm.clamp_min(1e-12)).clamp_max(1.0).to(gradient.dtype)
