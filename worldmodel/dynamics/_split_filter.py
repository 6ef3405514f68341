"""The categorical RSSM's filter with the inputs' shares of two layers computed for all rows at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.dynamics.recurrent import RecurrentState


def split_filter(
    model: RecurrentState,
    embed: Float[Tensor, "B T E"],
    action: Float[Tensor, "B T A"],
    keep: Float[Tensor, "B T 1"],
    noise: Float[Tensor, "B T groups classes"],
    carry: Float[Tensor, "B D"],
    *,
    draw: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T groups classes"]]:
    """The window's latents and the probabilities that each z was drawn with, as the loop in `CategoricalRSSM.observe`.

    keep: 0 where an episode opens, else 1.
    draw: the latent, and the probabilities of its z, from h, the posterior's logits and noise.
    """
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
        latent, posterior = draw(h, heads(_plus(views[:, t], h, of_h)), noise[:, t])
        rows.append((latent, posterior))
    latents, posteriors = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    return latents, posteriors


def _plus(part: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.addmm(part, x.to(part.dtype), weight.t().to(part.dtype))
