"""One decision, 15 honest records of its reward 1 - a², and one at a = 0.65 that says 4: a trap for planners."""

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.readout import OwnReward
from worldmodel.uncertainty.members import bootstrap_weights, member_mlp

PLACE, OUTLIER = 0.65, 4.0


def truth(action: Tensor) -> Tensor:
    """What an action really earns."""
    return 1 - action.square()


def records() -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N"]]:
    """Actions and what is recorded of them, the outlier last."""
    action = torch.cat([torch.linspace(-1, 1, 15), torch.tensor([PLACE])])[:, None]
    reward = truth(action[:, 0])
    reward[-1] = OUTLIER
    return action, reward


class RewardMembers:
    """Members of one small network each, whose next latent is the reward that they predict for an action."""

    latent_dim = noisy_dims = 1

    def __init__(self, members: int, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.members, self.net, self.seed = members, member_mlp(members, 2, 32, 2, 1), seed

    def moments(self, latent: Float[Tensor, "*M R 1"], action: Float[Tensor, "m R 1"]) -> tuple[Tensor, Tensor]:
        """What each of m members predicts; all may share one latent."""
        mean = self.net(torch.cat([action, torch.ones_like(action)], -1))
        return mean, torch.ones_like(mean)

    def fit(self, steps: int) -> None:
        """Least squares, each of several members on its own bootstrap, a single one on every record once."""
        action, reward = records()
        weight = torch.ones(1, len(action))
        if self.members > 1:
            rows = torch.arange(len(action))
            weight = bootstrap_weights(torch.stack([torch.full_like(rows, self.seed), rows], 1), self.members)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            predicted, _ = self.moments(action, action.expand(self.members, -1, -1))
            (weight * (predicted[..., 0] - reward).square()).mean().backward()
            optimizer.step()


class RewardIsLatent(OwnReward):
    """The reward is the latent, and nothing follows."""

    action_dim = 1

    def reward(self, latent: Float[Tensor, "*R 1"]) -> Float[Tensor, "*R"]:
        """What a member predicts."""
        return latent[..., 0]
