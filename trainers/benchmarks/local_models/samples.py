"""Local dynamics of the cart and pole from few trajectories, with a global model that is wrong as the prior."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.cartpole import Cartpole
from worldmodel.local_models.control_space import ControlSpace, Paths, roll_out
from worldmodel.local_models.fitting import fit_dynamics, linearise
from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics

HORIZON, HELD_OUT, STARTS = 10, 30, 20
SLOWNESS = 0.75  # of the change of a state, what the global model predicts
NOISE_STD = 0.01
SPREAD = (0.3, 0.5, 1.0, 2.0, 0.5, 0.5)  # stds of state and control within which its derivatives count


class Sluggish(Cartpole):
    """Every change of the state is too small by a quarter."""

    def step(self, latent: Float[Tensor, "R 5"], action: Float[Tensor, "R 1"]) -> Float[Tensor, "R 5"]:
        """The wrong next state."""
        after = latent[:, :4] + SLOWNESS * (super().step(latent, action)[:, :4] - latent[:, :4])
        return torch.cat([after, action], 1)


def errors_by_samples(counts: list[int], *, strength: float) -> dict[str, list[float]]:
    """One-step error on other trajectories of the same controller, in stds of a state's change, by how it was fitted.

    Args:
        counts: of trajectories.
        strength: samples that the global model weighs.
    """
    torch.manual_seed(0)
    start = torch.zeros(STARTS, 5, dtype=torch.float64)
    start[:, :4] = 0.5 * torch.randn(STARTS, 4, dtype=torch.float64)
    start[:, 1] += math.pi * torch.rand(STARTS, dtype=torch.float64)
    truth, wrong = ControlSpace(Cartpole()), ControlSpace(Sluggish())
    paths = roll_out(
        truth, start, lambda states, noise, t: 0.5 * noise, samples=max(counts) + HELD_OUT, horizon=HORIZON
    )
    shaken = Paths(paths.states + NOISE_STD * torch.randn_like(paths.states), paths.controls)
    others = Paths(paths.states[:, max(counts) :], paths.controls[:, max(counts) :])
    found: dict[str, list[float]] = {"prior alone": [], "least squares": [], "Bayesian regression": []}
    for count in counts:
        states, controls = shaken.states[:, :count], shaken.controls[:, :count]
        noise = NOISE_STD**2 * torch.eye(5, dtype=torch.float64)
        prior, _ = linearise(wrong, states.mean(1), controls.mean(1), noise=noise)
        options: dict[str, Any] = {"spread": torch.tensor(SPREAD, dtype=torch.float64)}
        found["prior alone"].append(_error(prior, others))
        for name, weight in (("least squares", 1e-6), ("Bayesian regression", strength)):
            fitted = fit_dynamics(prior, states, controls, strength=weight, **options)
            found[name].append(_error(fitted, others))
    return found


def _error(dynamics: LinearGaussianDynamics, paths: Paths) -> float:
    z = torch.cat([paths.states[:, :, :-1], paths.controls], -1)
    predicted = (dynamics.F[:, None] @ z[..., None])[..., 0] + dynamics.f[:, None]
    change = (paths.states[:, :, 1:] - paths.states[:, :, :-1])[..., :4]
    error = (predicted - paths.states[:, :, 1:])[..., :4] / change.std((0, 1, 2))
    return float(error.square().mean().sqrt())
