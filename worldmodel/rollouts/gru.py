"""What rollouts of GRU cells share."""

import torch
from jaxtyping import Float
from torch import Tensor


class State:
    """h of a GRU cell, as (h + 1) / 2: there the candidate tanh(x / 2) is σ(x), a third of tanh's time on a CPU.

    In float32, whatever products are made in: an update gate near its end moves it by less than bf16 can say.
    """

    def __init__(self, first: Float[Tensor, "R D"]) -> None:
        self._half = torch.add(0.5, first, alpha=0.5)
        self._minus_one = first.new_tensor(-1.0)

    def mix(self, candidate: Float[Tensor, "R D"], update: Float[Tensor, "R D"], out: Float[Tensor, "R D"]) -> None:
        """h + update (2 candidate - 1 - h), kept and written to out."""
        self._half.lerp_(candidate.float(), update.float())
        torch.add(self._minus_one, self._half, alpha=2, out=out)


def spread(rows: Float[Tensor, "B I"], count: int) -> Float[Tensor, "R I"]:
    """Every row once for each of the `count` rows that start from it."""
    return rows.repeat_interleave(count // len(rows), 0)
