"""r(s, a) where the state is observed: known from the task's definition, or learned."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Reward(nn.Module, ABC):
    """The reward of a decision, read off the state that it led to; `make` takes state_dim, action_dim and repeat.

    repeat: control steps per decision, over which the environment sums.
    """

    @abstractmethod
    def forward(self, state: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """What arrives with a state [*R D] after an action [*R A]."""

    @abstractmethod
    def loss(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R A"], reward: Float[Tensor, "R"]
    ) -> Float[Tensor, "R"]:
        """What to minimise; zeros where there is nothing to learn."""
