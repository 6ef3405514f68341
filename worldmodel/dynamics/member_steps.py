"""What follows from several models of one step, however they were come by: an ensemble, or draws from a posterior."""

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.distributions import Moments
from worldmodel.interfaces import Belief


class MemberSteps(nn.Module):
    """M Gaussian steps p_m(s' | s, a), which share a latent: predict is their mean, imagine draws one for every row.

    noisy_dims: the last dimensions of a latent, those that a step leaves uncertain; the others have a std of 0.
    """

    members: int
    latent_dim: int
    noisy_dims: int

    @abstractmethod
    def moments(self, latent: Float[Tensor, "M R D"], action: Float[Tensor, "M R A"]) -> Moments:
        """Mean and std of each member's step from rows of its own."""

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The mean over members of their means."""
        return self.of_all(latent, action)[0].mean(0)

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """A sample of one member's step, the members shared out among the rows at random."""
        state, control = latent.flatten(0, -2), action.flatten(0, -2)
        R = len(state)
        share = -(-R // self.members)
        # ranks, not a permutation of R: the last member's share is filled up with rows that are thrown away
        order = torch.randperm(share * self.members, device=state.device)
        rows = order % R
        mean, std = self.moments(state[rows].unflatten(0, (-1, share)), control[rows].unflatten(0, (-1, share)))
        place = order.argsort()[:R]
        mean, std = mean.flatten(0, 1)[place], std.flatten(0, 1)[place]
        return (mean + std * torch.randn_like(std)).view_as(latent)

    def disagreement(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """Epistemic: variance over members of their means, averaged over the latent's dimensions."""
        return self.of_all(latent, action)[0].var(0, correction=0).mean(-1)

    def entropy(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """Aleatoric: the mean over members of their Gaussian's entropy, nats per noisy dimension."""
        std = self.of_all(latent, action)[1][..., -self.noisy_dims :]
        return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).mean((0, -1))

    @torch.no_grad()
    def report(self, belief: Belief, action: Float[Tensor, "B T A"]) -> dict[str, Float[Tensor, ""]]:
        """Both uncertainties of a window's steps, apart: `model/entropy` and `model/disagreement`."""
        step = belief.latent[:, :-1], action[:, 1:]
        return {"model/entropy": self.entropy(*step).mean(), "model/disagreement": self.disagreement(*step).mean()}

    def of_all(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Moments:
        """Every member on every row, [M *R D]."""
        shared = [x.reshape(1, -1, x.shape[-1]).expand(self.members, -1, -1) for x in (latent, action)]
        mean, std = self.moments(*shared)
        return mean.view(-1, *latent.shape), std.view(-1, *latent.shape)
