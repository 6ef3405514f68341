"""Any shooting planner on rewards at the edge of their confidence interval (5.3.3)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import Confident
from worldmodel.interfaces import Simulator
from worldmodel.planners.searches import SearchElsewhere, make_search
from worldmodel.simulators.wrapped import ConfidenceSimulator


class ConfidencePlanner(SearchElsewhere):
    """Searches with another planner, whose options come along, in a `ConfidenceSimulator`.

    A plan's value has the terms of optimism or pessimism in it.

    Args:
        search: the planner's name.
        kappa: what a unit of the reward's epistemic std adds to it.
    """

    def __init__(self, *, search: str = "cem", kappa: float = 0.0, **options: Any) -> None:
        super().__init__(make_search(search, options))
        self.kappa = kappa

    def world(
        self, simulator: Simulator, latent: Float[Tensor, "B D"]
    ) -> tuple[ConfidenceSimulator, Float[Tensor, "B D"]]:
        """The model with its rewards moved; raises TypeError for rewards without a posterior."""
        if not isinstance(simulator, Confident):
            raise TypeError(f"planner=confidence: expected rewards with a posterior, got {type(simulator).__name__}")
        return ConfidenceSimulator(simulator, kappa=self.kappa), latent


make = ConfidencePlanner
