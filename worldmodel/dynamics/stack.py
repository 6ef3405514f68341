"""The last few embeddings of every row: one frame shows no velocity. Every frame is embedded once."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor


def carried(embed_dim: int, count: int) -> int:
    """Size of the carry: the count - 1 embeddings before now, and whether they are real."""
    return (count - 1) * embed_dim + 1


def stack(
    embed: Float[Tensor, "B T E"], is_first: Bool[Tensor, "B T"], carry: Float[Tensor, "B C"], *, count: int
) -> tuple[Float[Tensor, "B T stacked"], Float[Tensor, "B C"], Bool[Tensor, "B T"]]:
    """The last `count` = k embeddings of every row, the carry after the window, and the rows whose stack is complete.

    Rows before an episode's start, or before a window that begins without a carry, repeat its first frame. At an
    episode's start that is complete; in its midst it would pass off movement as rest.
    """
    B, T, E = embed.shape
    past, known = carry[:, :-1], carry[:, -1] > 0
    line = torch.cat([past.reshape(B, count - 1, E).to(embed.dtype), embed], 1)
    now = torch.arange(T, device=embed.device) + count - 1
    opened = torch.where(is_first, now, torch.where(known, 0, count - 1)[:, None])
    if T > 1:  # acting sees one row at a time, and an ONNX program of that has no running maximum
        opened = opened.cummax(1).values
    lags = torch.arange(count - 1, -1, -1, device=embed.device)
    source = torch.maximum(now[None, :, None] - lags, opened[..., None])
    rows = torch.arange(B, device=embed.device)[:, None, None]
    stacked = line[rows, source]  # [B T k E]
    complete = ((is_first.cumsum(1) > 0) | known[:, None]) | (now >= 2 * (count - 1))
    after = torch.cat([stacked[:, -1, 1:].flatten(1), torch.ones_like(carry[:, :1])], -1)
    return rearrange(stacked, "B T k E -> B T (k E)"), after, complete
