"""Sets of finitely many actions in [-1, 1]: a grid, a choice for each dimension, or an environment's own."""

from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from worldmodel.distributions import one_hot_mode
from worldmodel.errors import BadValue
from worldmodel.limits import require_whole


@runtime_checkable
class ActionSet(Protocol):
    """Finitely many actions, as one choice out of `choices` in each of `groups` that do not depend on each other."""

    groups: int
    choices: int

    def weights(self, action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R groups choices"]:
        """How much of every choice is in any action of [-1, 1]: at least 0, with sum 1 in each group."""

    def action(self, index: Int64[Tensor, "*R groups"]) -> Float[Tensor, "*R A"]:
        """The action that is chosen."""


class PerDimension:
    """`bins` equally spaced values from -1 to 1 for each dimension on its own.

    Tavakoli et al., Action Branching Architectures (2018); Seyde et al., Solving Continuous Control via Q-learning
    (2023).
    """

    def __init__(self, *, action_dim: int, bins: int) -> None:
        require_whole(bins=bins, least=2)
        self.groups, self.choices = action_dim, bins

    def weights(self, action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R A bins"]:
        """The two bins around each entry, shared linearly."""
        return hats(action, self.choices)

    def action(self, index: Int64[Tensor, "*R A"]) -> Float[Tensor, "*R A"]:
        """The bins' values."""
        return index.float() * (2 / (self.choices - 1)) - 1


class Grid:
    """All combinations of `bins` equally spaced values from -1 to 1 in every dimension: bins^A choices.

    Raises:
        BadValue: for more of them than 4096.
    """

    groups = 1

    def __init__(self, *, action_dim: int, bins: int) -> None:
        require_whole(bins=bins, least=2)
        self._bins, self._dims, self.choices = bins, action_dim, bins**action_dim
        if self.choices > 4096:
            raise BadValue(f"bins: expected at most 4096 actions in a grid, got {bins}^{action_dim}")

    def weights(self, action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R 1 choices"]:
        """The corners of the cell that an action lies in, shared multilinearly."""
        first, *others = hats(action, self._bins).unbind(-2)
        for other in others:
            first = rearrange(first.unsqueeze(-1) * other.unsqueeze(-2), "... k l -> ... (k l)")
        return first.unsqueeze(-2)

    def action(self, index: Int64[Tensor, "*R 1"]) -> Float[Tensor, "*R A"]:
        """The corner's values; the last dimension changes fastest."""
        places = [self._bins**power for power in reversed(range(self._dims))]
        digits = torch.cat([index // place % self._bins for place in places], -1)
        return digits.float() * (2 / (self._bins - 1)) - 1


class OneHot:
    """The A actions of an environment that takes the largest entry: 1 there, -1 elsewhere."""

    groups = 1

    def __init__(self, *, action_dim: int) -> None:
        self.choices = action_dim

    def weights(self, action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R 1 A"]:
        """All of it is the largest entry."""
        return one_hot_mode(action).unsqueeze(-2)

    def action(self, index: Int64[Tensor, "*R 1"]) -> Float[Tensor, "*R A"]:
        """1 at the index."""
        return 2 * F.one_hot(index.squeeze(-1), self.choices).float() - 1


def hats(action: Float[Tensor, "*R A"], bins: int) -> Float[Tensor, "*R A bins"]:
    """Linear interpolation between equally spaced bins, as their weights."""
    place = (action.clamp(-1, 1).unsqueeze(-1) + 1) * ((bins - 1) / 2)
    return (1 - (place - torch.arange(bins, device=action.device)).abs()).clamp_min(0)
