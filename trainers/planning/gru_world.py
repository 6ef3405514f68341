"""The reference workload of planner benchmarks: PlaNet's dynamics and reward, 341,231 parameters, random weights.

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), sizes as in its appendix.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.heads import Head

DETERMINISTIC, STOCHASTIC, HIDDEN, ACTION = 200, 30, 200, 6
GAIN = 3.0  # of random weights: at torch's own, hardly anything depends on the actions


class GRUDynamics(nn.Module):
    """Latents [h, z]: h by a GRU cell on a layer of [z, a], z the prior's mean given h."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = self.carry_dim = DETERMINISTIC + STOCHASTIC
        self.inputs = nn.Linear(STOCHASTIC + ACTION, DETERMINISTIC)
        self.cell = nn.GRUCell(DETERMINISTIC, DETERMINISTIC)
        self.prior = nn.Linear(DETERMINISTIC, STOCHASTIC)

    def predict(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """One step, each layer by itself: what the fast rollout is compared with, and what peers are given."""
        h, z = latent.split([DETERMINISTIC, STOCHASTIC], -1)
        h = self.cell(F.relu(self.inputs(torch.cat([z, action], -1))), h)
        return torch.cat([h, self.prior(h)], -1)


class GRUReward(Head):
    """A perceptron of two layers of 200."""

    def __init__(self) -> None:
        super().__init__()
        D = DETERMINISTIC + STOCHASTIC
        hidden = [nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
        self.net = nn.Sequential(*hidden, nn.Linear(HIDDEN, 1))

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The reward."""
        return self.net(latent).squeeze(-1)

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Squared error."""
        return (self(latent) - target).square()


def random_world(seed: int = 0) -> tuple[GRUDynamics, GRUReward, Float[Tensor, "1 D"]]:
    """Dynamics and reward with random weights, and a latent to plan from."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dynamics, reward = GRUDynamics(), GRUReward()
    for parameter in [*dynamics.inputs.parameters(), *reward.parameters()]:
        parameter.data *= GAIN
    h = torch.rand(1, DETERMINISTIC, generator=generator) - 0.5
    with torch.no_grad():
        latent = torch.cat([h, dynamics.prior(h)], -1)
    return dynamics.requires_grad_(False), reward.requires_grad_(False), latent
