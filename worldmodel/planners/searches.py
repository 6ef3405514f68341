"""Planners that search in a world of their own with any other planner."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel import planners
from worldmodel.errors import BadValue
from worldmodel.importing import import_part, part_names
from worldmodel.interfaces import Noise, Plan, Planner, Simulator
from worldmodel.limits import require_one_of

SHORT_NAMES = {"random": "random_shooting"}


def search_names() -> list[str]:
    """The planners that search in the world that they are given."""
    return [name for name in part_names(planners.__name__) if _maker(name) is not None]


def make_search(name: str, options: Mapping[str, Any]) -> Planner:
    """Build a planner of `search_names` from those options that it has: a config is the same for all of them.

    Args:
        name: of its module, or one of `SHORT_NAMES`.
        options: by name; those that only other planners have are left out.

    Raises:
        BadValue: for a name that is none, and for an option that no planner has.
    """
    module = SHORT_NAMES.get(name, name)
    require_one_of([*search_names(), *SHORT_NAMES], search=name)
    known = {key for other in search_names() for key in _options(other)}
    for key in options:
        if key not in known:
            raise BadValue(f"{key}: no option of search={name}, which takes {', '.join(_options(module))}")
    make = _maker(module)
    assert make is not None
    return make(**{key: value for key, value in options.items() if key in _options(module)})


def _maker(module: str) -> Callable[..., Planner] | None:
    """The `make` of a module, None for planners that search elsewhere themselves."""
    make = import_part(f"{planners.__name__}.{module}").make
    elsewhere = isinstance(make, type) and issubclass(make, SearchElsewhere)
    return None if elsewhere else make


def _options(module: str) -> Sequence[str]:
    make = _maker(module)
    return [] if make is None else list(inspect.signature(make).parameters)


class SearchElsewhere(ABC):
    """Plans with another planner in what `world` makes of the simulator."""

    def __init__(self, search: Planner) -> None:
        self.search, self.horizon = search, search.horizon

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
