"""Several models of a step in the latent space of one filter, however they were come by.

An ensemble has them, and so has a posterior over weights, as draws from it.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.capabilities import WeightedLosses
from worldmodel.distributions import Moments, Statistics
from worldmodel.errors import naming
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_one_of, require_whole
from worldmodel.uncertainty.members import disagreement


class MemberSteps(nn.Module):
    """The filter of another model, and M Gaussian steps p_m(s' | s, a) from its latents.

    predict is their mean, imagine draws one for every row.

    Args:
        embed_dim, action_dim: E and A, numbers of an embedding and of an action.
        filter: `name` and options of the model that filters, one of `filters`.
        members: M, how many.
    """

    filters: ClassVar[Mapping[str, Callable[..., nn.Module]]]
    noisy_dims: int  # the last ones of a latent, those that a step leaves uncertain; the others have a std of 0

    def __init__(self, *, embed_dim: int, action_dim: int, filter: Mapping[str, Any], members: int = 5) -> None:
        require_whole(members=members)
        super().__init__()
        options = dict(filter)
        name = options.pop("name", None)
        require_one_of(self.filters, **{"filter.name": name})
        with naming("filter"):
            model: Any = self.filters[name](embed_dim=embed_dim, action_dim=action_dim, **options)
        self.filter, self.latent_dim, self.carry_dim = model, model.latent_dim, model.carry_dim
        self.action_dim, self.members = action_dim, members
        self.loss_weights = dict(model.loss_weights) if isinstance(model, WeightedLosses) else {}

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool,
    ) -> Belief:
        return self.filter.observe(embed, action, is_first, carry, sample=sample)

    def ahead(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
    ) -> tuple[Float[Tensor, "*R D"], Statistics]:
        """A sample of the filter's own prior, and the statistics that it was drawn with."""
        return self.filter.ahead(latent, action)

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
        mean, std = self.moments(*(x[rows].unflatten(0, (self.members, share)) for x in (state, control)))
        place = order.argsort()[:R]
        mean, std = mean.flatten(0, 1)[place], std.flatten(0, 1)[place]
        return (mean + std * torch.randn_like(std)).view_as(latent)

    def disagreement(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """Epistemic: variance over members of their means, averaged over the noisy dimensions."""
        return disagreement(self.of_all(latent, action)[0], self.noisy_dims)

    def entropy(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """Aleatoric: the mean over members of their Gaussian's entropy, nats per noisy dimension."""
        return self._entropy(self.of_all(latent, action)[1])

    @torch.no_grad()
    def report(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Both uncertainties of the steps within episodes, apart: `model/entropy` and `model/disagreement`."""
        mean, std = self.of_all(belief.latent[:, :-1], batch.action[:, 1:])
        steps = {"model/entropy": self._entropy(std), "model/disagreement": disagreement(mean, self.noisy_dims)}
        weight = belief.continued(batch.is_first).to(std.dtype)  # no step leads from an episode to the next
        return {name: (rows * weight).sum() / weight.sum().clamp_min(1) for name, rows in steps.items()}

    def of_all(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Moments:
        """Every member on every row, [M *R D]."""
        shared = [x.reshape(1, -1, x.shape[-1]).expand(self.members, -1, -1) for x in (latent, action)]
        mean, std = self.moments(*shared)
        return mean.view(-1, *latent.shape), std.view(-1, *latent.shape)

    def _entropy(self, std: Tensor) -> Tensor:
        return (std[..., -self.noisy_dims :].log() + 0.5 * math.log(2 * math.pi * math.e)).mean((0, -1))
