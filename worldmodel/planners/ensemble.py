"""Any shooting planner on the expected return over an ensemble's members (5.3.3)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import HasDynamics, Members
from worldmodel.interfaces import Simulator
from worldmodel.planners.searches import SearchElsewhere, make_search
from worldmodel.simulators.ensemble import EnsembleSimulator


class EnsemblePlanner(SearchElsewhere):
    """Searches with another planner, whose options come along, in an `EnsembleSimulator` of the model's members.

    A plan's value is the expected return with the terms of optimism or pessimism.

    Args:
        search: the other planner's name; any other option is its own.
        particles, resample, noisy, kappa, bonus: as in `EnsembleSimulator`.
    """

    def __init__(
        self,
        *,
        search: str = "cem",
        particles: int = 5,
        resample: bool = False,
        noisy: bool = False,
        kappa: float = 0.0,
        bonus: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(make_search(search, options))
        self.terms: dict[str, Any] = {
            "particles": particles,
            "resample": resample,
            "noisy": noisy,
            "kappa": kappa,
            "bonus": bonus,
        }

    def world(
        self, simulator: Simulator, latent: Float[Tensor, "B D"]
    ) -> tuple[EnsembleSimulator, Float[Tensor, "B S"]]:
        """The model's members side by side; raises TypeError for a model without any."""
        ensemble = simulator.dynamics if isinstance(simulator, HasDynamics) else None
        if not isinstance(ensemble, Members):
            kind = type(ensemble).__name__
            raise TypeError(
                f"planner=ensemble: expected members (dynamics=ensemble, laplace or variational), got {kind}"
            )
        world = EnsembleSimulator(simulator=simulator, ensemble=ensemble, **self.terms)
        return world, world.start(latent)


make = EnsemblePlanner
