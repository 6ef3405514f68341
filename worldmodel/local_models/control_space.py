"""A simulator in controls that know no bounds, u, of which the bounded action is a function."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.capabilities import HasDynamics
from worldmodel.distributions import Moments
from worldmodel.interfaces import Dynamics, Noise, Simulator
from worldmodel.local_models.linear_gaussian import LinearGaussianPolicy
from worldmodel.simulators.survival import continuation, survival
from worldmodel.simulators.wrapped import WrappedSimulator


class ControlSpace(WrappedSimulator):
    """The simulator of whoever plans with Gaussian controls.

    A squashed policy's KL is that of its controls: both are squashed by the same function.

    Args:
        simulator: takes actions in [-1, 1].
        to_action: of a control, tanh for squashed policies.
    """

    def __init__(self, simulator: Simulator, to_action: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__(simulator)
        self.to_action = to_action

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """The mean of the next latent after a control."""
        return self.simulator.step(latent, self.to_action(action))

    def imagine(self, latent: Float[Tensor, "R D"], control: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """A sample of the next latent, where the dynamics are a distribution."""
        dynamics = self.simulator.dynamics if isinstance(self.simulator, HasDynamics) else None
        if isinstance(dynamics, Dynamics):
            return dynamics.imagine(latent, self.to_action(control))
        return self.step(latent, control)

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """There is no policy over controls."""
        return None


@dataclass(frozen=True, slots=True)
class Paths:
    """Sampled trajectories, N of every start."""

    states: Float[Tensor, "B N points n"]
    controls: Float[Tensor, "B N H A"]


# states [B N n], standard normal noise [B N A] and the step to controls [B N A]
Act = Callable[[Tensor, Tensor, int], Tensor]


def of_network(moments: Callable[[Tensor], Moments]) -> Act:
    """The controls of a network, of whose moments `moments` tells."""

    def act(states: Tensor, noise: Tensor, _: int) -> Tensor:
        mean, std = moments(states)
        return mean + std * noise

    return act


def of_controllers(policy: LinearGaussianPolicy) -> Act:
    """The controls of local policies."""

    def act(states: Tensor, noise: Tensor, t: int) -> Tensor:
        return policy.sample(states.double(), noise.double(), t)

    return act


def roll_out(world: ControlSpace, start: Float[Tensor, "B n"], act: Act, *, samples: int, horizon: int) -> Paths:
    """Imagine `samples` = N trajectories of `horizon` = H steps from every start."""
    B = len(start)
    state = start[:, None].expand(-1, samples, -1)
    states, controls = [state], []
    for t in range(horizon):
        noise = torch.randn(B, samples, world.action_dim, dtype=start.dtype, device=start.device)
        controls.append(act(state, noise, t).to(start.dtype))
        after = world.imagine(state.flatten(0, 1), controls[-1].flatten(0, 1))
        state = after.unflatten(0, (B, samples))
        states.append(state)
    return Paths(torch.stack(states, 2), torch.stack(controls, 2))


def returns(world: ControlSpace, paths: Paths, *, control_cost: float = 0.0) -> Float[Tensor, "B N"]:
    """Discounted return of every trajectory, without what follows its last state, minus the price of ½ |u|².

    Rewards count as often as the episode is under way when they arrive, as in the cost that controllers minimise.
    """
    arrivals = paths.states[:, :, 1:]
    rewards, continues = world.reward(arrivals), continuation(world, arrivals)
    if continues is not None:
        under_way, _ = survival(continues.flatten(0, 1).mT)
        rewards = rewards * under_way.mT.view_as(rewards)
    rewards = rewards - 0.5 * control_cost * paths.controls.square().sum(-1)
    weights = world.discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    return (rewards * weights).sum(-1)


def mean_return(world: ControlSpace, paths: Paths) -> Float[Tensor, ""]:
    """The mean return of all trajectories."""
    return returns(world, paths).mean()


def surely_worse(
    after: Float[Tensor, "B N"], before: Float[Tensor, "B N"], *, expected: Float[Tensor, "B"]
) -> Bool[Tensor, "B"]:
    """Starts whose mean return fell, by two standard errors more than it was expected to, or is not finite.

    Args:
        after, before: returns of trajectories.
        expected: gain of their mean; what is negative was meant.
    """
    known = min(1, after.shape[1] - 1)  # of one trajectory no variance is known
    error = (after.var(1, correction=known) + before.var(1, correction=known)).div(after.shape[1]).sqrt()
    return ~(after.mean(1) - before.mean(1) >= expected.clamp_max(0) - 2 * error)
