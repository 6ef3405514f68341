"""Rollouts of a policy in a learned world, and the returns that they promise."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel._fused_imagination import fused_imagine
from worldmodel.capabilities import SamplesSteps
from worldmodel.interfaces import Readout
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.simulators.survival import continuation
from worldmodel.transfer import resident

_PERCENTILES = (0.05, 0.95)

# what chooses actions for states: the actions, and what to keep of the choice
Act = Callable[[Tensor], tuple[Tensor, Tensor]]
# what the next decision starts from, given how many were made and the state that arrived
PassOn = Callable[[int, Tensor], Tensor]


def unchanged(_: int, state: Tensor) -> Tensor:
    """The next decision starts from what arrived, and its gradients lead back there."""
    return state


@dataclass(frozen=True, slots=True)
class Imagined:
    """Rollouts that start from R latents.

    Args:
        states: the starts, and what arrived after each decision.
        rewards: that arrived with states 1 to H.
        kept: of every decision, such as log π(a | s).
    """

    states: Float[Tensor, "_ R D"]
    rewards: Float[Tensor, "H R"]
    kept: Float[Tensor, "H R *F"]


def imagine(
    simulator: LatentSimulator, act: Act, start: Float[Tensor, "R D"], *, horizon: int, passed_on: PassOn = unchanged
) -> Imagined:
    """Roll out samples of the prior for `horizon` decisions of `act`."""
    dynamics = simulator.dynamics
    fused = fused_imagine(dynamics, act, start, horizon=horizon) if passed_on is unchanged else None
    if fused is not None:
        rollouts, log_probs = fused
        return Imagined(rollouts, simulator.reward(rollouts[1:]), log_probs)
    assert isinstance(dynamics, SamplesSteps), dynamics
    state, states, kept = start, [start], []
    for k in range(horizon):
        action, what = act(state)
        states.append(dynamics.imagine(state, action))
        kept.append(what)
        state = passed_on(k + 1, states[-1])
    stacked = torch.stack(states)
    return Imagined(stacked, simulator.reward(stacked[1:]), torch.stack(kept))


def detached(_: int, state: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
    """For `imagine`: no gradient leads from one decision to the next."""
    return state.detach()


def subsample(latent: Float[Tensor, "_ D"], most: int) -> Float[Tensor, "R D"]:
    """At most so many of the rows, drawn at random."""
    if latent.shape[0] <= most:
        return latent
    return latent[torch.randperm(latent.shape[0], device=latent.device)[:most]]


@dataclass(frozen=True, slots=True)
class Endings:
    """How rollouts end by termination.

    Args:
        discount: γ times the probability that the episode goes on after each arrival; γ where none ends.
        weight: the probability that it is under way before each decision, without gradients; None where none ends.
    """

    discount: float | Float[Tensor, "H R"]
    weight: Float[Tensor, "H R"] | None

    def of_rollouts(self, rows: Float[Tensor, "*H R"]) -> Float[Tensor, "*H R"]:
        """Rows that count as often as their rollout begins at all: not where the start is terminal itself."""
        return rows if self.weight is None else self.weight[0] * rows

    def of_decisions(self, rows: Float[Tensor, "H R"]) -> Float[Tensor, "H R"]:
        """Rows that count as often as their decision comes to be made."""
        return rows if self.weight is None else self.weight * rows

    def mean(self, rows: Float[Tensor, "H R"]) -> Float[Tensor, ""]:
        """The mean over decisions, each as often as it comes to be made."""
        return self.of_decisions(rows).mean()


def endings(simulator: Readout, states: Float[Tensor, "_ R D"]) -> Endings:
    """Of rollouts whose H + 1 states are given, the first of which may be terminal itself."""
    continues = continuation(simulator, states)
    if continues is None:
        return Endings(simulator.discount, None)
    return Endings(simulator.discount * continues[1:], continues[:-1].detach().cumprod(0))


def lambda_return(
    reward: Float[Tensor, "H R"], value: Float[Tensor, "H R"], *, discount: float | Float[Tensor, "H R"], mix: float
) -> Float[Tensor, "H R"]:
    """λ-returns of imagined rollouts, G[t] = r[t] + γ((1-λ) v[t] + λ G[t+1]) with G[H] = v[H-1].

    reward[t], value[t] and discount[t] belong to the latent that arrives at imagined step t, so G[t] is the return of
    the latent before it. mix is λ in [0, 1]. Sutton and Barto, Reinforcement Learning (2018), equation 12.2.
    """
    returns = []
    following = value[-1]
    for t in reversed(range(reward.shape[0])):
        factor = discount if isinstance(discount, float | int) else discount[t]
        following = reward[t] + factor * ((1 - mix) * value[t] + mix * following)
        returns.append(following)
    return torch.stack(returns[::-1])


@torch.no_grad()
def track_spread(spread: Float[Tensor, ""], returns: Float[Tensor, "*R"]) -> None:
    """Move `spread` a hundredth towards the 5-95 percentile range of returns, 1 at least.

    By it rewards of any size weigh alike against entropies. Hafner et al., Mastering Diverse Domains through World
    Models (2023), equation 7.
    """
    low, high = torch.quantile(returns.flatten(), resident(_PERCENTILES, returns.device, returns.dtype))
    span = (high - low).clamp_min(1.0)
    spread.lerp_(torch.where(span.isfinite(), span, spread), 0.01)  # one bad update must not stay
