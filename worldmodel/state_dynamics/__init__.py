"""Dynamics where the state itself is observed: f(s, a) of Algorithms 23 to 25."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class StateDynamics(nn.Module, ABC):
    """s' = f(s, a), regressed on transitions; `make` takes state_dim and action_dim."""

    state_dim: int

    @abstractmethod
    def begin_fit(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], following: Float[Tensor, "R D"]
    ) -> None:
        """Take from all transitions what stays as it is while the weights are fitted to batches of them."""

    @abstractmethod
    def predict(self, state: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""

    @abstractmethod
    def loss(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], following: Float[Tensor, "R D"]
    ) -> Float[Tensor, "R"]:
        """The squared error of each transition, ‖f(s, a) - s'‖², in units of the fit's own."""
