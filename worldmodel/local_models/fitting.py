"""Local models around trajectories: from a global model's derivatives, and from samples with these as the prior."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from worldmodel.interfaces import Simulator
from worldmodel.latent_rows import Transitions
from worldmodel.local_models.control_space import ControlSpace, Paths
from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics
from worldmodel.local_models.quadratic_cost import QuadraticCost
from worldmodel.local_models.regression import regress_around
from worldmodel.planners.derivatives import Expansion, discounts, expand, psd
from worldmodel.planners.lqr import matvec
from worldmodel.simulators.survival import continuation

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


def linearise(
    simulator: Simulator,
    states: Float[Tensor, "B points n"],
    controls: Float[Tensor, "B H A"],
    *,
    noise: Float[Tensor, "n n"],
    control_cost: float = 0.0,
) -> tuple[LinearGaussianDynamics, QuadraticCost]:
    """The global model to first order and its rewards to second order around paths of H + 1 points, in float64.

    Where episodes can end, a reward counts as often as it is earned, and a state pays for what an end there loses.

    Args:
        simulator: the global model; without a value.
        states, controls: the paths.
        noise: covariance of the model's one-step error.
        control_cost: of ½ |u|² at every step, discounted as rewards are.
    """
    B, H, A = controls.shape
    n = states.shape[-1]
    along = expand(simulator, states, controls)
    slope, curvature = _with_endings(simulator, states[:, 1:], along)
    after = simulator.step(states[:, :-1].flatten(0, 1), controls.flatten(0, 1)).unflatten(0, (B, H))
    F, x, after = along.transition.double(), states.double(), after.double()
    z = torch.cat([x[:, :-1], controls.double()], -1)
    dynamics = LinearGaussianDynamics(F, after - matvec(F, z), noise.double().expand(B, H, n, n))
    curvature = curvature.double()
    slope = slope.double() - matvec(curvature, x[:, 1:])
    cost = QuadraticCost(F.new_zeros(B, H, n + A, n + A), F.new_zeros(B, H, n + A), curvature[:, -1], slope[:, -1])
    cost.curvature[:, 1:, :n, :n], cost.slope[:, 1:, :n] = curvature[:, :-1], slope[:, :-1]
    price = control_cost * simulator.discount ** torch.arange(H).to(F)
    cost.curvature[:, :, n:, n:] = price[:, None, None] * torch.eye(A).to(F)
    return dynamics, cost


def fit_dynamics(
    prior: LinearGaussianDynamics,
    states: Float[Tensor, "B N points n"],
    controls: Float[Tensor, "B N H A"],
    *,
    spread: Float[Tensor, "m"],
    strength: float,
) -> LinearGaussianDynamics:
    """Time-varying dynamics from N trajectories of every start, by Bayesian linear regression at every step.

    Args:
        prior: the global model, linearised.
        states, controls: the trajectories, of H + 1 and H points.
        spread: stds of states and controls for which the global model is known: how far its slopes may be trusted.
        strength: how many samples the global model weighs.

    Returns:
        The posterior's mean, with the mean of its noise.
    """
    z = torch.cat([states[:, :, :-1], controls], -1).double().transpose(1, 2)  # [B H N m]
    centre = z.mean(2)
    model = regress_around(
        centre,
        prior.F,
        matvec(prior.F, centre) + prior.f,
        prior.noise,
        inputs=z,
        outputs=states[:, :, 1:].double().transpose(1, 2),
        spread=spread,
        strength=strength,
    )
    return LinearGaussianDynamics(*model)


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


def _with_endings(
    simulator: Simulator, arrivals: Float[Tensor, "B H n"], along: Expansion
) -> tuple[Float[Tensor, "B H n"], Float[Tensor, "B H n n"]]:
    """Slope and curvature of the cost of arrivals with the chance that the episode ends at each of them."""
    continues = continuation(simulator, arrivals)
    if continues is None:
        return along.slope, along.curvature

    def goes_on(x: Tensor) -> Tensor:
        return -simulator.continues(x[None])[0]  # type: ignore[attr-defined]

    under_way = torch.cat([torch.ones_like(continues[:, :1]), continues[:, :-1]], 1).cumprod(1)
    rewards, follows = simulator.reward(arrivals), [torch.zeros_like(continues[:, 0])]
    for t in reversed(range(1, arrivals.shape[1])):
        follows.append(rewards[:, t] + simulator.discount * continues[:, t] * follows[-1])
    discount = discounts(simulator, arrivals.shape[1], arrivals) * simulator.discount
    lost = under_way * discount * torch.stack(follows[::-1], 1)
    slope = under_way[..., None] * along.slope + lost[..., None] * vmap(vmap(jacrev(goes_on)))(arrivals)
    bend = lost[..., None, None] * vmap(vmap(jacrev(jacrev(goes_on))))(arrivals)
    return slope, under_way[..., None, None] * along.curvature + psd(bend.nan_to_num())
