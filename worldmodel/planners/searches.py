"""Planners that search in a world of their own with any of the shooting planners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.planners.cem import CEM
from worldmodel.planners.gradient import GradientShooting
from worldmodel.planners.icem import ICEM
from worldmodel.planners.mppi import MPPI
from worldmodel.planners.random_shooting import RandomShooting
from worldmodel.planners.search import Search
from worldmodel.planners.seeded import SeededCEM

SEARCHES: dict[str, type[Search]] = {
    "cem": CEM,
    "gradient": GradientShooting,
    "icem": ICEM,
    "mppi": MPPI,
    "random": RandomShooting,
    "seeded": SeededCEM,
}


def make_search(name: str, options: Mapping[str, Any]) -> Search:
    """One of `SEARCHES` from those options that it has: a config is the same for all of them.

    Raises ValueError for an option that none of them has.
    """
    if name not in SEARCHES:
        raise ValueError(f"planner.search: expected one of {', '.join(SEARCHES)}, got {name!r}")
    taken = {search: [field.name for field in fields(kind) if field.init] for search, kind in SEARCHES.items()}
    for key in options:
        if not any(key in keys for keys in taken.values()):
            raise ValueError(f"planner.{key}: no option of search={name}, which takes {', '.join(taken[name])}")
    return SEARCHES[name](**{key: value for key, value in options.items() if key in taken[name]})


class SearchElsewhere(ABC):
    """Plans with the search of that name, whose options come along, in what `world` makes of the simulator."""

    def __init__(self, search: str, options: Mapping[str, Any]) -> None:
        self.search = make_search(search, options)
        self.horizon = self.search.horizon

    @abstractmethod
    def world(self, simulator: Simulator, latent: Float[Tensor, "B D"]) -> tuple[Simulator, Float[Tensor, "B S"]]:
        """The simulator to search in, and the latents to start from there."""

    def plan(
        self,
        simulator: Simulator,
        latent: Float[Tensor, "B D"],
        *,
        warm: Float[Tensor, "B H A"] | None = None,
        generator: Noise = None,
        deadline: float | None = None,
        iterations: int | None = None,
    ) -> Plan:
        """The search's plan; its value is what that world promises."""
        return self.search.plan(
            *self.world(simulator, latent), warm=warm, generator=generator, deadline=deadline, iterations=iterations
        )
