"""Rewards at the edge of what a posterior believes of them, as a simulator for any planner (5.3.3)."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import Confident
from worldmodel.simulators.wrapped import WrappedSimulator


class ConfidenceSimulator(WrappedSimulator):
    """Another simulator with reward + kappa · its epistemic std: optimism above 0, pessimism below."""

    simulator: Confident

    def __init__(self, simulator: Confident, *, kappa: float) -> None:
        super().__init__(simulator)
        self.kappa = kappa

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The bound of the reward's confidence interval."""
        return self.simulator.reward(latent) + self.kappa * self.simulator.reward_std(latent)
