"""Another simulator as it is; a subclass changes what it is about, as its rewards by how sure they are (5.3.3)."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import Confident
from worldmodel.interfaces import Noise, Simulator
from worldmodel.simulators.survival import continuation, may_end, may_value


class WrappedSimulator:
    """All that planners ask of a simulator, answered by `simulator`; its fast way to returns is not passed on."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.action_dim, self.discount = simulator.action_dim, simulator.discount
        self.terminates, self.valued = may_end(simulator), may_value(simulator)

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        return self.simulator.step(latent, action)

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        return self.simulator.reward(latent)

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        return self.simulator.value(latent)

    def continues(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        continues = continuation(self.simulator, latent)
        return latent.new_ones(latent.shape[:-1]) if continues is None else continues

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        return self.simulator.propose(latent, generator)


class ConfidenceSimulator(WrappedSimulator):
    """Another simulator with reward + kappa · its epistemic std: optimism above 0, pessimism below."""

    simulator: Confident

    def __init__(self, simulator: Confident, *, kappa: float) -> None:
        super().__init__(simulator)
        self.kappa = kappa

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The bound of the reward's confidence interval."""
        return self.simulator.reward(latent) + self.kappa * self.simulator.reward_std(latent)
