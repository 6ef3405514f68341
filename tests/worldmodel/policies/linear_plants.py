"""Linear plants as learned worlds, and linear policies, for which Riccati knows what is to be learned."""

import torch
from torch import Tensor, nn

from worldmodel.heads.head import Head
from worldmodel.heads.scalar import ScalarHead
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator

N, A = 3, 2
EFFORT = 0.5  # R is this times the identity


def double(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Plant:
    """x' = F x + G u."""

    def __init__(self, F: Tensor, G: Tensor) -> None:
        self.F, self.G = F, G

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        return latent @ self.F.mT + action @ self.G.mT


class QuadraticReward(Head):
    """-½ xᵀ Q x."""

    def __init__(self, Q: Tensor) -> None:
        super().__init__()
        self.net, self.Q = nn.Sequential(), Q

    def read(self, outputs: Tensor) -> Tensor:
        return -0.5 * ((outputs @ self.Q) * outputs).sum(-1)

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


class LinearActor(nn.Module):
    """u ~ N(K x + k, diag std²), for plants whose actions have no bounds; it sees the first `seen` dimensions."""

    def __init__(self, latent_dim: int, action_dim: int, seen: int | None = None) -> None:
        super().__init__()
        self.seen = seen or latent_dim
        self.net = nn.Linear(self.seen, action_dim, dtype=torch.float64)
        self.log_std = nn.Parameter(torch.zeros(action_dim, dtype=torch.float64))
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)

    def moments(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.net(latent[..., : self.seen].double())
        return mean, self.log_std.exp().expand_as(mean)

    def mode(self, latent: Tensor) -> Tensor:
        return self.moments(latent)[0]

    def sample(self, latent: Tensor, *, generator: object) -> Tensor:
        mean, std = self.moments(latent)
        return mean + std * torch.randn_like(mean)


def policy_spec(latent_dim: int = N, action_dim: int = A, seen: int | None = None) -> PolicySpec:
    return PolicySpec(
        latent_dim=latent_dim,
        action_dim=action_dim,
        discount=0.99,
        build_actor=lambda options: LinearActor(latent_dim, action_dim, seen),
        build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=1.0, hidden=8),
    )


def world(F: Tensor, G: Tensor, Q: Tensor) -> LatentSimulator:
    return LatentSimulator(
        dynamics=Plant(F, G),
        reward=QuadraticReward(Q),
        value=None,
        actor=None,
        action_dim=G.shape[1],
        discount=1.0,
    )


def rows_of(latent: Tensor, plant: Plant, actions: int) -> LatentRows:
    """Windows of two rows, the second after a random action."""
    action = torch.cat([torch.zeros(len(latent), 1, actions), torch.randn(len(latent), 1, actions)], 1).to(latent)
    flags = torch.zeros(len(latent), 2, dtype=torch.bool)
    states = torch.stack([latent, plant.predict(latent, action[:, 1])], 1)
    batch = Batch({}, action, torch.zeros(len(latent), 2), flags, flags, flags)
    return LatentRows.of(batch, Belief(states, torch.zeros(len(latent), 1), {}))
