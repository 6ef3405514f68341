"""Small worlds with known derivatives: linear ones, a random perceptron, and a chaotic map."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.readout import known_world
from worldmodel.simulators.latent import LatentSimulator

DIM = 4  # of states and of actions
DRIVE = 0.1  # the action's share in the chaotic map

Step = Callable[[Tensor, Tensor], Tensor]


def linear(radius: float) -> Step:
    """s' = ρ R s + a / 10, with a rotation R: every state's spectral radius is ρ."""
    angle = torch.tensor([[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]])
    turn = radius * torch.block_diag(*[angle] * (DIM // 2))
    return lambda latent, action: latent @ turn.mT + 0.1 * action


def perceptron() -> Step:
    """s' = s + (f(s, a) - s) / 2 with a random perceptron f of one hidden layer, whose outputs are of order 1."""
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(2 * DIM, 32, generator=draw) / math.sqrt(2 * DIM)
    second = torch.randn(32, DIM, generator=draw) / math.sqrt(32)

    def step(latent: Tensor, action: Tensor) -> Tensor:
        target = torch.tanh(torch.cat([latent, action], -1) @ first) @ second
        return latent + 0.5 * (target - latent)

    return step


def logistic(latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
    """s' = 2 z² - 1 with z = (1 - c) s + c a in every dimension: the logistic map on [-1, 1], pushed a little.

    Nearby states part by a factor of about 1.8 a step until they are as far apart as any (Lyapunov exponent above 0).
    """
    return 2 * ((1 - DRIVE) * latent + DRIVE * action).square() - 1


def near_goal(latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
    """Minus half the mean squared distance to 0.3 in every dimension."""
    return -0.5 * (latent - 0.3).square().mean(-1)


WORLDS = {
    "linear 0.9": linear(0.9),
    "linear 1.1": linear(1.1),
    "perceptron": perceptron(),
    "chaotic": logistic,
}


def simulator(name: str) -> LatentSimulator:
    """A world by its name, undiscounted and without values."""
    return known_world(WORLDS[name], near_goal, action_dim=DIM)


def starts(count: int) -> Float[Tensor, "R D"]:
    """States to start from, uniform within [-0.9, 0.9]."""
    return 1.8 * torch.rand(count, DIM) - 0.9
