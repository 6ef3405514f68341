"""Episodes that can end, in imagined rollouts: what comes after an end counts as often as the episode gets there."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import SaysIfValued, Terminates
from worldmodel.interfaces import Noise, Readout, Simulator


def may_end(simulator: Readout) -> bool:
    """Whether episodes of a simulated world can end by termination."""
    return isinstance(simulator, Terminates) and simulator.terminates


def may_value(simulator: Readout) -> bool:
    """Whether a simulated world's values say what follows: of a world that does not tell, they are taken to."""
    return simulator.valued if isinstance(simulator, SaysIfValued) else True


def continuation(simulator: Readout, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"] | None:
    """The probability that an episode goes on after a latent, None in a world where none ends."""
    if isinstance(simulator, Terminates) and simulator.terminates:
        return simulator.continues(latent)
    return None


def survival(continues: Float[Tensor, "H R"]) -> tuple[Float[Tensor, "H R"], Float[Tensor, "R"]]:
    """How likely an episode is to be under way when imagined step t arrives, and after the last one.

    Args:
        continues: the probability that it goes on after each arrival.

    Returns:
        Π of the factors before each step, 1 for the first; Π of all of them.
    """
    after = continues.cumprod(0)
    return torch.cat([torch.ones_like(after[:1]), after[:-1]]), after[-1]


class SurvivalSimulator:
    """A world that may end as one that never does: rewards and values arrive times the probability to live to see them.

    For planners that take rewards for functions of a state. A state [R S] is made by `start`: the latent, and the
    probabilities that the episode was under way when it arrived, and goes on after it.
    """

    def __init__(self, simulator: Simulator) -> None:
        assert isinstance(simulator, Terminates), simulator
        self.simulator, self._ends = simulator, simulator
        self.action_dim, self.discount = simulator.action_dim, simulator.discount
        self.valued = may_value(simulator)

    def start(self, latent: Float[Tensor, "B D"]) -> Float[Tensor, "B S"]:
        """A latent from which the episode goes on."""
        return torch.cat([latent, torch.ones_like(latent[:, :1]), torch.ones_like(latent[:, :1])], -1)

    def step(self, state: Float[Tensor, "R S"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R S"]:
        """The simulator's, and what that does to the probabilities."""
        after = self.simulator.step(state[..., :-2], action)
        arrives = state[..., -1:]
        return torch.cat([after, arrives, arrives * self._ends.continues(after)[..., None].to(after.dtype)], -1)

    def reward(self, state: Float[Tensor, "*R S"]) -> Float[Tensor, "*R"]:
        """The simulator's, as often as it is earned."""
        return state[..., -2] * self.simulator.reward(state[..., :-2])

    def value(self, state: Float[Tensor, "*R S"]) -> Float[Tensor, "*R"]:
        """The simulator's, as often as the episode goes on."""
        return state[..., -1] * self.simulator.value(state[..., :-2])

    def propose(self, state: Float[Tensor, "R S"], generator: Noise) -> Float[Tensor, "R A"] | None:
        return self.simulator.propose(state[..., :-2], generator)
