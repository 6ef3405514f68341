"""A GRU over the rows of a window, its inputs' share of the gates in one product for all rows."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldmodel.nets import NormGRUCell


def recur(
    cell: NormGRUCell, inputs: Float[Tensor, "B T I"], keep: Float[Tensor, "B T 1"], h: Float[Tensor, "B D"]
) -> Float[Tensor, "B T D"]:
    """The state after every row, from `h`; keep: 0 where what was before a row is forgotten, else 1."""
    of_input, of_h = cell.gates.weight.split_with_sizes([inputs.shape[-1], h.shape[-1]], 1)
    rows, states = F.linear(inputs, of_input), []
    for row, kept in zip(rows.unbind(1), keep.unbind(1), strict=True):
        h = cell.update(torch.addmm(row, (h * kept).to(row.dtype), of_h.t().to(row.dtype)), h * kept)
        states.append(h)
    return torch.stack(states, 1)
