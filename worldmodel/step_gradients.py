"""Gradients that flow back through imagined steps (5.5.1): how large they are at each, and what bounds them."""

import torch
from jaxtyping import Float
from torch import Tensor


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
