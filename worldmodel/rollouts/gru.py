"""The gates of GRU cells, in place."""

import torch
from jaxtyping import Float
from torch import Tensor


def tanh_(x: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
    """tanh(x / 2) in place, as 2 σ(x) - 1: a third of tanh's time on a CPU, at an absolute error of one rounding."""
    return x.sigmoid_().mul_(2).sub_(1)


class State:
    """h in float32, whatever products are made in: an update gate near its end moves it by less than bf16 can say."""

    def __init__(self, first: Float[Tensor, "R D"], dtype: torch.dtype) -> None:
        self.h, self._low = first, dtype != torch.float32
        self._kept = torch.empty(first.shape, device=first.device) if self._low else first

    def mix(self, candidate: Float[Tensor, "R D"], update: Float[Tensor, "R D"], out: Float[Tensor, "R D"]) -> None:
        """h + update (candidate - h), kept and written to out."""
        if self._low:
            self.h = torch.lerp(self.h, candidate.float(), update.float(), out=self._kept)
            out.copy_(self.h)
        else:
            self.h = torch.lerp(self.h, candidate, update, out=out)


def spread(rows: Float[Tensor, "B I"], count: int) -> Float[Tensor, "R I"]:
    """Every row once for each of the `count` rows that start from it; no copy where there is one."""
    return rows.expand(count, -1) if len(rows) == 1 else rows.repeat_interleave(count // len(rows), 0)
