"""Dynamics where the state itself is observed, f(s, a) of Algorithms 23 to 25: the filter is the identity."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.interfaces import Batch, Belief


class ObservedState(nn.Module, ABC):
    """Latents are the observed states and the actions that led to them, so that rewards r(s', a) can be read off.

    Args:
        embed_dim: numbers in a state, S: the identity encoder's.
        action_dim: numbers in an action, A.
    """

    carry_dim = 0  # nothing is remembered
    unit: Tensor  # [S] std of a state's change in one decision under the base policy: what errors are counted in

    def __init__(self, *, embed_dim: int, action_dim: int) -> None:
        super().__init__()
        self.state_dim, self.latent_dim = embed_dim, embed_dim + action_dim
        self.register_buffer("unit", torch.zeros(embed_dim))

    @abstractmethod
    def step(self, state: Float[Tensor, "*R S"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R S"]:
        """The next state."""

    @abstractmethod
    def fit(self, state: Float[Tensor, "R S"], action: Float[Tensor, "R A"], following: Float[Tensor, "R S"]) -> None:
        """Take from all transitions what stays as it is while weights are fitted to batches of them."""

    @abstractmethod
    def error(
        self, state: Float[Tensor, "*R S"], action: Float[Tensor, "*R A"], following: Float[Tensor, "*R S"]
    ) -> Float[Tensor, "*R"]:
        """The squared error of each transition, ‖f(s, a) - s'‖², in units of the model's own."""

    def observe(
        self,
        embed: Float[Tensor, "B T S"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B 0"],
        *,
        sample: bool,
    ) -> Belief:
        """Each state beside the action that led to it, zeros where an episode opens."""
        latent = torch.cat([embed, torch.where(is_first[..., None], 0.0, action).to(embed.dtype)], -1)
        return Belief(latent=latent, carry=carry, statistics={})

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state, beside the action."""
        return torch.cat([self.step(latent[..., : self.state_dim], action), action], -1)

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The same step: there is nothing to sample."""
        return self.predict(latent, action)

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """`dynamics`, whose mean over all rows is that over all transitions."""
        state, arrived = belief.latent[..., : self.state_dim], (~batch.is_first[:, 1:]).float()
        error = self.error(state[:, :-1], batch.action[:, 1:], state[:, 1:]) * arrived
        scale = batch.is_first.numel() / arrived.sum().clamp_min(1)
        return {"dynamics": torch.cat([torch.zeros_like(error[:, :1]), error], 1) * scale}

    @torch.no_grad()
    def fit_at_once(self, embed: Float[Tensor, "B T S"], batch: Batch) -> None:
        """`fit` on the transitions of windows; the first call, on the base policy's data, sets the unit of errors."""
        state, action, following = _transitions(embed, batch)
        if not self.unit.any():
            std = (following - state).std(0)
            # what never changed keeps its own unit: by 1e-6 of one, its first change would be all of the error
            self.unit.copy_(torch.where(std > 1e-6 * state.abs().amax(0), std, 1.0))
        self.fit(state, action, following)

    @torch.no_grad()
    def one_step_error(self, embed: Float[Tensor, "B T S"], batch: Batch) -> Float[Tensor, ""]:
        """Root mean square of f(s, a) - s' over the transitions of windows and all dimensions, in `unit`."""
        state, action, following = _transitions(embed, batch)
        return ((self.step(state, action) - following) / self.unit).square().mean().sqrt()


def _transitions(embed: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """States, actions and following states [R, ...] of all rows that have one before them."""
    arrived = ~batch.is_first[:, 1:]
    return embed[:, :-1][arrived], batch.action[:, 1:][arrived], embed[:, 1:][arrived]
