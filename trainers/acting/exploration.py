"""Noise that an agent's actions are collected with: white or pink, silent now and then, and alone until it finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.coloured_noise import colour, mixing
from worldmodel.limits import require_number
from worldmodel.spec import EnvSpec

LONGEST = 1024  # decisions after which the noise of a long episode repeats
STRETCHES = 10  # of an episode, each with noise of one kind or without


@dataclass(frozen=True, slots=True)
class EpisodeNoise:
    """What disturbs the decisions of an episode."""

    noise: Float[Tensor, "T A"]  # for actions in [-1, 1]
    alone: Bool[Tensor, "T"] | None  # where the noise is all of the action; None for nowhere


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How the actions of an episode are disturbed.

    Agents are judged without noise. Where all of their experience has it, the states in which they come to rest
    without it are unknown to them: a ball that hangs still is left hanging. So some tenths of every episode are played
    without, and what follows shows the way out. Pink noise pushes in one direction for longer than white noise does,
    which an actuator averages away (Eberhard et al., 2023, Pink noise is all you need); where something has to be hit
    again and again, white noise does it more often.

    Where no reward was ever seen, a planner ranks candidates by errors of its model: it holds actions that mean
    nothing, and noise around them finds less than noise alone. So tenths are played by noise alone, of std 1 and
    either colour, until as many rewards have been found as an episode has decisions, fewer and fewer of them.

    Raises:
        BadValue: for a number out of its range.
    """

    std: float  # of the noise, for actions in [-1, 1]; 0 for none
    pink: float = 0.0  # share of an episode's tenths whose noise is pink, in [0, 1]; that of the others is white
    silent: float = 0.0  # share of an episode's tenths without noise, in [0, 1]
    random: float = 0.0  # share of the other tenths that are played by noise alone as long as nothing was found
    decisions: int  # of a whole episode

    def __post_init__(self) -> None:
        require_number(std=self.std, least=0)
        require_number(pink=self.pink, silent=self.silent, random=self.random, least=0, most=1)

    @classmethod
    def of(cls, agent: Mapping[str, Any], spec: EnvSpec) -> Self:
        """As a configuration's `agent` says, for episodes of an environment."""
        return cls(
            std=agent["explore_std"],
            pink=agent["explore_pink"],
            silent=agent["explore_silent"],
            random=agent["explore_random"],
            decisions=spec.episode_decisions,
        )

    @property
    def disturbs(self) -> bool:
        """Whether there is any noise."""
        return self.std > 0 or self.random > 0

    @property
    def period(self) -> int:
        """Decisions after which the noise repeats."""
        return min(self.decisions, LONGEST)

    def draw(self, action_dim: int, generator: torch.Generator, *, found: int = 0) -> EpisodeNoise:
        """The noise of an episode, of `period` decisions.

        Args:
            action_dim: A.
            generator: where random numbers come from.
            found: recorded decisions so far with a reward that is not the usual one.
        """
        white = torch.randn(self.period, action_dim, generator=generator)
        pink, silent = torch.rand(2, STRETCHES, generator=generator)
        stretch = torch.arange(self.period) * STRETCHES // self.period
        coloured, silent_now = pink < self.pink, silent < self.silent
        alone_now = torch.zeros(STRETCHES, dtype=torch.bool)
        if self.random:
            alone, kind = torch.rand(2, STRETCHES, generator=generator)
            alone_now = (alone < self.random * max(0.0, 1 - found / self.decisions)) & ~silent_now
            coloured = torch.where(alone_now, kind < 0.5, coloured)
        noise = torch.where(coloured[stretch, None], colour(white, self._mixing), white) if coloured.any() else white
        std = torch.where(alone_now, 1.0, self.std).masked_fill(silent_now, 0.0)
        return EpisodeNoise(std[stretch, None] * noise, alone_now[stretch] if self.random else None)

    @cached_property
    def _mixing(self) -> Float[Tensor, "T T"]:
        return mixing(self.period, 1.0)
