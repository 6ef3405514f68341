"""Noise that an agent's actions are collected with: white or pink, and silent now and then."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.coloured_noise import colour, mixing
from worldmodel.limits import require_number
from worldmodel.spec import EnvSpec

LONGEST = 1024  # decisions after which the noise of a long episode repeats
STRETCHES = 10  # of an episode, each with noise of one kind or without


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How the actions of an episode are disturbed.

    Agents are judged without noise. Where all of their experience has it, the states in which they come to rest
    without it are unknown to them: a ball that hangs still is left hanging. So some tenths of every episode are played
    without, and what follows shows the way out. Pink noise pushes in one direction for longer than white noise does,
    which an actuator averages away (Eberhard et al., 2023, Pink noise is all you need); where something has to be hit
    again and again, white noise does it more often.

    Args:
        std: of the noise, for actions in [-1, 1]; 0 for none.
        pink: share of an episode's tenths whose noise is pink, in [0, 1]; that of the others is white.
        silent: share of an episode's tenths without noise, in [0, 1].
        decisions: of a whole episode.

    Raises:
        BadValue: for a number out of its range.
    """

    std: float
    pink: float = 0.0
    silent: float = 0.0
    decisions: int

    def __post_init__(self) -> None:
        require_number(std=self.std, least=0)
        require_number(pink=self.pink, silent=self.silent, least=0, most=1)

    @classmethod
    def of(cls, agent: Mapping[str, Any], spec: EnvSpec) -> Self:
        """As a configuration's `agent` says, for episodes of an environment."""
        return cls(
            std=agent["explore_std"],
            pink=agent.get("explore_pink", 0.0),
            silent=agent.get("explore_silent", 0.0),
            decisions=spec.episode_decisions,
        )

    @property
    def period(self) -> int:
        """Decisions after which the noise repeats."""
        return min(self.decisions, LONGEST)

    def draw(self, action_dim: int, generator: torch.Generator) -> Float[Tensor, "T A"]:
        """The noise of an episode, of `period` decisions."""
        noise = torch.randn(self.period, action_dim, generator=generator)
        pink, silent = torch.rand(2, STRETCHES, generator=generator)
        stretch = torch.arange(self.period) * STRETCHES // self.period
        if self.pink:
            noise = torch.where((pink < self.pink)[stretch, None], colour(noise, self._mixing), noise)
        return self.std * noise * (silent >= self.silent)[stretch, None]

    @cached_property
    def _mixing(self) -> Float[Tensor, "T T"]:
        return mixing(self.period, 1.0)
