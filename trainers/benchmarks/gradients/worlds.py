"""Small worlds with known derivatives: linear ones, a random perceptron, and a chaotic map."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.readout import KnownReward
from worldmodel.simulators.latent import LatentSimulator

DIM = 4  # of states and of actions
DRIVE = 0.1  # the action's share in the chaotic map


class Linear:
    """s' = ρ R s + a / 10, with a rotation R: every state's spectral radius is ρ."""

    def __init__(self, radius: float) -> None:
        angle = torch.tensor([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]])
        self.step = radius * torch.block_diag(*[angle] * (DIM // 2))

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""
        return latent @ self.step.mT + 0.1 * action

    imagine = predict


class Perceptron:
    """s' = s + (f(s, a) - s) / 2 with a random perceptron f of one hidden layer, whose outputs are of order 1."""

    def __init__(self, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.first = torch.randn(2 * DIM, 32, generator=draw) / math.sqrt(2 * DIM)
        self.second = torch.randn(32, DIM, generator=draw) / math.sqrt(32)

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""
        target = torch.tanh(torch.cat([latent, action], -1) @ self.first) @ self.second
        return latent + 0.5 * (target - latent)

    imagine = predict


class Logistic:
    """s' = 2 z² - 1 with z = (1 - c) s + c a in every dimension: the logistic map on [-1, 1], pushed a little.

    Nearby states part by a factor of about 1.8 a step until they are as far apart as any (Lyapunov exponent above 0).
    """

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""
        return 2 * ((1 - DRIVE) * latent + DRIVE * action).square() - 1

    imagine = predict


def near_goal(latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
    """Minus half the mean squared distance to 0.3 in every dimension."""
    return -0.5 * (latent - 0.3).square().mean(-1)


WORLDS: dict[str, Callable[[], Linear | Perceptron | Logistic]] = {
    "linear 0.9": lambda: Linear(0.9),
    "linear 1.1": lambda: Linear(1.1),
    "perceptron": Perceptron,
    "chaotic": Logistic,
}


def simulator(name: str) -> LatentSimulator:
    """A world by its name, undiscounted and without values."""
    parts = {"dynamics": WORLDS[name](), "reward": KnownReward(near_goal), "value": None, "actor": None}
    return LatentSimulator(**parts, action_dim=DIM, discount=1.0)  # type: ignore[arg-type]


def starts(count: int) -> Float[Tensor, "R D"]:
    """States to start from, uniform within [-0.9, 0.9]."""
    return 1.8 * torch.rand(count, DIM) - 0.9
