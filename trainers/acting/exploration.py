"""Noise that an agent's actions are collected with: coloured, and silent now and then."""

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
STRETCHES = 10  # of an episode, each with noise or without


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How the actions of an episode are disturbed.

    Agents are judged without noise. Where all of their experience has it, the states in which they come to rest
    without it are unknown to them: a ball that hangs still is left hanging. So some stretches of every episode are
    played without, and what follows shows the way out. Between them pink noise pushes in one direction for longer than
    white noise does, which actuators average away (Eberhard et al., 2023, Pink noise is all you need).

    Args:
        std: of the noise, for actions in [-1, 1]; 0 for none.
        colour: power of the noise falls with frequency as f^-colour: 0 is white, 1 pink.
        silent: share of an episode's tenths without noise, in [0, 1].
        decisions: of a whole episode.

    Raises:
        BadValue: for a number out of its range.
    """

    std: float
    colour: float = 0.0
    silent: float = 0.0
    decisions: int

    def __post_init__(self) -> None:
        require_number(std=self.std, least=0)
        require_number(colour=self.colour, least=0)
        require_number(silent=self.silent, least=0, most=1)

    @classmethod
    def of(cls, agent: Mapping[str, Any], spec: EnvSpec) -> Self:
        """As a configuration's `agent` says, for episodes of an environment."""
        return cls(
            std=agent["explore_std"],
            colour=agent.get("explore_colour", 0.0),
            silent=agent.get("explore_silent", 0.0),
            decisions=spec.episode_decisions,
        )

    @property
    def period(self) -> int:
        """Decisions after which the noise repeats."""
        return min(self.decisions, LONGEST)

    def draw(self, action_dim: int, generator: torch.Generator) -> Float[Tensor, "T A"]:
        """The noise of an episode, of `period` decisions."""
        white = torch.randn(self.period, action_dim, generator=generator)
        noise = self.std * (colour(white, self._mixing) if self.colour else white)
        if self.silent:
            loud = torch.rand(STRETCHES, generator=generator) >= self.silent
            noise = noise * loud[torch.arange(self.period) * STRETCHES // self.period, None]
        return noise

    @cached_property
    def _mixing(self) -> Float[Tensor, "T T"]:
        return mixing(self.period, self.colour)
