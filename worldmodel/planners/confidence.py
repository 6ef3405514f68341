"""Any shooting planner on rewards at the edge of their confidence interval (5.3.3)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel.confidence_simulator import ConfidenceSimulator
from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.planners.ensemble import SEARCHES


class ConfidencePlanner:
    """Searches with another planner, whose options come along, in a `ConfidenceSimulator`.

    search: the planner's name. kappa: what a unit of the reward's epistemic std adds to it.
    """

    def __init__(self, *, search: str = "cem", kappa: float = 0.0, **options: Any) -> None:
        if search not in SEARCHES:
            raise ValueError(f"planner.search: expected one of {', '.join(SEARCHES)}, got {search!r}")
        self.search, self.kappa = SEARCHES[search](**options), kappa
        self.horizon = self.search.horizon

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
        """The search's plan; its value has the terms of optimism or pessimism in it."""
        world: Any = simulator
        if not hasattr(world, "reward_std"):
            raise TypeError(f"planner=confidence: expected rewards with a posterior, got {type(simulator).__name__}")
        return self.search.plan(
            ConfidenceSimulator(world, kappa=self.kappa),
            latent,
            warm=warm,
            generator=generator,
            deadline=deadline,
            iterations=iterations,
        )


make = ConfidencePlanner
