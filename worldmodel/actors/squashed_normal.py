"""The policy π(a | s): a normal squashed into [-1, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.distributions import Moments, squashed_sample, standard_normal
from worldmodel.interfaces import Noise
from worldmodel.limits import require_number
from worldmodel.nets import mlp


class SquashedNormalActor(nn.Module):
    """A perceptron from latents to the mean and std of u, with a = tanh(u).

    Args:
        latent_dim: D, numbers of a latent.
        action_dim: A, action dimensions.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        min_std, max_std: bounds of u's std.
        mean_bound: |mean u| stays below it, so that a saturated policy can still learn its way back.

    Raises:
        BadValue: for an option out of its range.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        hidden: int = 200,
        layers: int = 2,
        min_std: float = 0.1,
        max_std: float = 1.0,
        mean_bound: float = 3.0,
    ) -> None:
        require_number(max_std=max_std, mean_bound=mean_bound, above=0)
        require_number(min_std=min_std, above=0, most=max_std)
        super().__init__()
        self.net = mlp(latent_dim, hidden, layers, 2 * action_dim)
        self.min_std, self.max_std, self.mean_bound = min_std, max_std, mean_bound

    def moments(self, latent: Float[Tensor, "*R D"]) -> Moments:
        """Mean and std of the normal before squashing, each [*R, A]."""
        return self.read(self.net(latent).float())

    def read(self, outputs: Float[Tensor, "*R O"]) -> Moments:
        """The moments that the perceptron's outputs stand for."""
        mean, raw = outputs.chunk(2, -1)
        std = self.min_std + (self.max_std - self.min_std) * torch.sigmoid(raw + 1)
        return self.mean_bound * torch.tanh(mean / self.mean_bound), std

    def action_slopes(
        self, outputs: Float[Tensor, "*R O"], noise: Float[Tensor, "*R A"], action: Float[Tensor, "*R A"]
    ) -> Float[Tensor, "*R 2 A"]:
        """The derivatives of a = tanh(mean + std · noise) by the two halves of the outputs."""
        mean, raw = outputs.chunk(2, -1)
        share = torch.sigmoid(raw + 1)
        by_mean = 1 - torch.tanh(mean / self.mean_bound).square()
        by_raw = noise * ((self.max_std - self.min_std) * share * (1 - share))
        return torch.stack([by_mean, by_raw], -2) * (1 - action.square()).unsqueeze(-2)

    def forward(self, latent: Float[Tensor, "*R D"]) -> tuple[Float[Tensor, "*R A"], Float[Tensor, "*R"]]:
        """A reparameterised action and its log density."""
        mean, std = self.moments(latent)
        return squashed_sample(mean, std, torch.randn_like(mean))

    def held_sample(self, latent: Float[Tensor, "*R D"]) -> tuple[Float[Tensor, "*R A"], Float[Tensor, "*R 2"]]:
        """An action without gradients; its log density, whose gradient is the score; a sample of the entropy.

        Only the density is differentiated, not the way to the action; the entropy's sample is reparameterised.
        """
        mean, std = self.moments(latent)
        noise = torch.randn_like(mean)
        _, entropy = squashed_sample(mean, std, noise)
        held = (mean + std * noise).detach()
        action, log_prob = squashed_sample(mean, std, (held - mean) / std)
        return action.detach(), torch.stack([log_prob, -entropy], -1)

    def mode(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R A"]:
        """The squashed mean; 0 where a latent is so large, or so little of a number, that there is none."""
        return torch.tanh(self.moments(latent)[0]).nan_to_num(0.0)

    def sample(self, latent: Float[Tensor, "*R D"], *, generator: Noise) -> Float[Tensor, "*R A"]:
        mean, std = self.moments(latent)
        noise = standard_normal(*mean.shape, generator=generator, device=mean.device)
        return torch.tanh(mean + std * noise).nan_to_num(0.0)


make = SquashedNormalActor
