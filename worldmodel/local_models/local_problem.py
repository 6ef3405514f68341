"""The linear-quadratic problem around sampled trajectories of a learned world."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Simulator
from worldmodel.latent_rows import Transitions
from worldmodel.local_models.control_space import ControlSpace, Paths
from worldmodel.local_models.fitting import fit_dynamics, linearise
from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics
from worldmodel.local_models.quadratic_cost import QuadraticCost

_FLOOR = 1e-3  # of stds: a dimension that does not move says nothing of where derivatives hold


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recorded transitions say of the global model.

    Args:
        noise: covariance of its one-step error.
        spread: stds of the states that it was learned on.
    """

    noise: Float[Tensor, "n n"]
    spread: Float[Tensor, "n"]

    @classmethod
    def of(cls, simulator: Simulator, steps: Transitions) -> "Recorded":
        """What a model misses of some steps, and where they began."""
        error = (steps.next_latent - simulator.step(steps.latent, steps.action)).double()
        noise = error.mT @ error / max(1, len(error)) + _FLOOR**2 * torch.eye(error.shape[1]).to(error)
        return cls(noise, steps.latent.double().std(0).nan_to_num().clamp_min(_FLOOR))


def local_problem(
    world: ControlSpace, paths: Paths, recorded: Recorded, *, strength: float, control_cost: float
) -> tuple[LinearGaussianDynamics, QuadraticCost]:
    """Time-varying dynamics fitted to the paths, with the world's derivatives as the prior, and its quadratic cost.

    Args:
        world: the global model.
        paths: N sampled trajectories of every start.
        recorded: what the global model is known from.
        strength: how many samples it weighs.
        control_cost: of ½ |u|², so that controls stay where squashing has a slope.
    """
    states, controls = paths.states.mean(1), paths.controls.mean(1)
    prior, cost = linearise(world, states, controls, noise=recorded.noise, control_cost=control_cost)
    spread = torch.cat([recorded.spread, recorded.spread.new_ones(controls.shape[-1])])
    return fit_dynamics(prior, paths.states, paths.controls, spread=spread, strength=strength), cost
