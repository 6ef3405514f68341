"""Any shooting planner on the expected return over an ensemble's members (5.3.3)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from worldmodel.ensemble_simulator import EnsembleSimulator
from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.planners.cem import CEM
from worldmodel.planners.gradient import GradientShooting
from worldmodel.planners.icem import ICEM
from worldmodel.planners.mppi import MPPI
from worldmodel.planners.random_shooting import RandomShooting
from worldmodel.planners.seeded import SeededCEM

SEARCHES = {
    "cem": CEM,
    "gradient": GradientShooting,
    "icem": ICEM,
    "mppi": MPPI,
    "random": RandomShooting,
    "seeded": SeededCEM,
}


class EnsemblePlanner:
    """Searches with another planner, whose options come along, in an `EnsembleSimulator` of the model's members.

    search: the planner's name. particles, resample, noisy, kappa, bonus: as in `EnsembleSimulator`.
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
        if search not in SEARCHES:
            raise ValueError(f"planner.search: expected one of {', '.join(SEARCHES)}, got {search!r}")
        self.search = SEARCHES[search](**options)
        self.horizon = self.search.horizon
        self.terms: dict[str, Any] = {
            "particles": particles,
            "resample": resample,
            "noisy": noisy,
            "kappa": kappa,
            "bonus": bonus,
        }

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
        """The search's plan; its value is the expected return with the terms of optimism or pessimism."""
        ensemble: Any = getattr(simulator, "dynamics", None)
        if not hasattr(ensemble, "moments"):
            kind = type(ensemble).__name__
            raise TypeError(
                f"planner=ensemble: expected members (dynamics=ensemble, laplace or variational), got {kind}"
            )
        world = EnsembleSimulator(simulator=simulator, ensemble=ensemble, **self.terms)
        return self.search.plan(
            world, world.start(latent), warm=warm, generator=generator, deadline=deadline, iterations=iterations
        )


make = EnsemblePlanner
