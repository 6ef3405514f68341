"""Rollouts of a policy in a learned world, and the returns that they promise."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Readout
from worldmodel.simulators.survival import continuation


@dataclass(frozen=True, slots=True)
class Endings:
    """How rollouts end by termination.

    Args:
        discount: γ times the probability that the episode goes on after each arrival; γ where none ends.
        weight: the probability that it is under way before each decision, without gradients; None where none ends.
    """

    discount: float | Float[Tensor, "H R"]
    weight: Float[Tensor, "H R"] | None

    def mean(self, rows: Float[Tensor, "H R"]) -> Float[Tensor, ""]:
        """The mean over decisions, each as often as it comes to be made."""
        return rows.mean() if self.weight is None else (self.weight * rows).mean()


def endings(simulator: Readout, states: Float[Tensor, "_ R D"]) -> Endings:
    """Of rollouts whose H + 1 states are given, the first of which may be terminal itself."""
    continues = continuation(simulator, states)
    if continues is None:
        return Endings(simulator.discount, None)
    return Endings(simulator.discount * continues[1:], continues[:-1].detach().cumprod(0))


def lambda_return(
    reward: Float[Tensor, "H R"],
    value: Float[Tensor, "H R"],
    *,
    discount: float | Float[Tensor, "H R"],
    mix: float,
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
