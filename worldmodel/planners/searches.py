"""Planners that search in a world of their own with any other planner."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel import planners
from worldmodel.errors import BadValue
from worldmodel.interfaces import Noise, Plan, Planner, Simulator
from worldmodel.limits import require_one_of
from worldmodel.parts import find, options_of, part_names

SHORT_NAMES = {"random": "random_shooting"}


def search_names() -> list[str]:
    """The planners that search in the world that they are given."""
    return [*_searches()]


def search_of(name: object) -> str:
    """The module of a search that has this name, or this one of `SHORT_NAMES`; a BadValue for what is none."""
    require_one_of([*search_names(), *SHORT_NAMES], search=name)
    return SHORT_NAMES.get(str(name), str(name))


def make_search(name: str, options: Mapping[str, Any]) -> Planner:
    """Build a planner of `search_names` from those options that it has: a config is the same for all of them.

    Args:
        name: of its module, or one of `SHORT_NAMES`.
        options: by name; those that only other planners have are left out.

    Raises:
        BadValue: for a name that is none, and for an option that no planner has.
    """
    searches, module = _searches(), search_of(name)
    takes = {other: options_of(make) for other, make in searches.items()}
    for key in options:
        if not any(key in others for others in takes.values()):
            raise BadValue(f"{key}: no option of search={name}, which takes {', '.join(takes[module])}")
    made: Planner = searches[module](**{key: value for key, value in options.items() if key in takes[module]})
    return made


def _searches() -> dict[str, Callable[..., Any]]:
    package = planners.__name__
    makes = {name: find(package, name, key="search") for name in part_names(package)}
    return {n: make for n, make in makes.items() if not (isinstance(make, type) and issubclass(make, SearchElsewhere))}


class SearchElsewhere(ABC):
    """Plans with another planner in what `world` makes of the simulator."""

    def __init__(self, search: Planner) -> None:
        self.search, self.horizon = search, search.horizon

    @staticmethod
    def passed_on(options: Mapping[str, Any]) -> set[str]:
        """The names of what the planner that `options` say to search with takes."""
        return {*options_of(_searches()[search_of(options.get("search", "cem"))])}

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
