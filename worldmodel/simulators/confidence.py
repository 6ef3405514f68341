"""Rewards at the edge of what a posterior believes of them, as a simulator for any planner (5.3.3)."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import Confident
from worldmodel.interfaces import Noise
from worldmodel.simulators.survival import continuation, may_end


class ConfidenceSimulator:
    """Another simulator with reward + kappa · its epistemic std: optimism above 0, pessimism below."""

    def __init__(self, simulator: Confident, *, kappa: float) -> None:
        self.simulator, self.kappa = simulator, kappa
        self.action_dim, self.discount = simulator.action_dim, simulator.discount
        self.terminates = may_end(simulator)

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """The simulator's."""
        return self.simulator.step(latent, action)

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The bound of the reward's confidence interval."""
        return self.simulator.reward(latent) + self.kappa * self.simulator.reward_std(latent)

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The simulator's."""
        return self.simulator.value(latent)

    def continues(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The simulator's."""
        continues = continuation(self.simulator, latent)
        return latent.new_ones(latent.shape[:-1]) if continues is None else continues

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """The simulator's."""
        return self.simulator.propose(latent, generator)
