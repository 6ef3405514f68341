"""The categorical RSSM's filter with the inputs' shares of two layers computed for all rows at once."""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.nets import NormGRUCell


class Filter(Protocol):
    """What of a categorical RSSM its filter is made of."""

    inputs: nn.Sequential
    cell: NormGRUCell
    posterior: nn.Sequential
    deterministic: int
    stochastic: int

    def probabilities(self, logits: Float[Tensor, "B Z"]) -> Float[Tensor, "B G K"]:
        """Of every class."""

    def state(
        self, h: Float[Tensor, "B h"], posterior: Float[Tensor, "B G K"], noise: Float[Tensor, "B G K"]
    ) -> Float[Tensor, "B D"]:
        """h and a draw of z."""


class Filtered(NamedTuple):
    """The window's latents and the probabilities that each z was drawn with."""

    latent: Float[Tensor, "B T D"]
    posterior: Float[Tensor, "B T G K"]


def split_filter(
    model: Filter,
    embed: Float[Tensor, "B T E"],
    action: Float[Tensor, "B T A"],
    keep: Float[Tensor, "B T 1"],
    noise: Float[Tensor, "B T G K"],
    carry: Float[Tensor, "B D"],
) -> Filtered:
    """The loop in `CategoricalRSSM.observe`; keep is 0 where an episode opens, else 1."""
    first, heads_first = model.inputs[0], model.posterior[0]
    assert isinstance(first, nn.Linear) and isinstance(heads_first, nn.Linear), (first, heads_first)
    inputs, heads = model.inputs[1:], model.posterior[1:]
    of_z, of_action = first.weight.split_with_sizes([model.stochastic, action.shape[-1]], 1)
    of_h, of_embed = heads_first.weight.split_with_sizes([model.deterministic, embed.shape[-1]], 1)
    controls, views = F.linear(action * keep, of_action), F.linear(embed, of_embed, heads_first.bias)
    latent, rows = carry, []
    for t in range(embed.shape[1]):
        h, z = (latent * keep[:, t]).split_with_sizes([model.deterministic, model.stochastic], -1)
        h = model.cell(inputs(_plus(controls[:, t], z, of_z)), h)
        posterior = model.probabilities(heads(_plus(views[:, t], h, of_h)))
        latent = model.state(h, posterior, noise[:, t])
        rows.append((latent, posterior))
    return Filtered(*(torch.stack(column, 1) for column in zip(*rows, strict=True)))


def _plus(part: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.addmm(part, x.to(part.dtype), weight.t().to(part.dtype))
