"""Discounted sums: pure functions of tensors."""

import torch
from jaxtyping import Float
from torch import Tensor


def lambda_return(
    reward: Float[Tensor, "H R"], value: Float[Tensor, "H R"], *, discount: float, mix: float
) -> Float[Tensor, "H R"]:
    """λ-returns of imagined rollouts, G[t] = r[t] + γ((1-λ) v[t] + λ G[t+1]) with G[H] = v[H-1].

    reward[t] and value[t] belong to the latent that arrives at imagined step t, so G[t] is the return of the latent
    before it. mix is λ in [0, 1]. Sutton and Barto, Reinforcement Learning (2018), equation 12.2.
    """
    returns = []
    following = value[-1]
    for t in reversed(range(reward.shape[0])):
        following = reward[t] + discount * ((1 - mix) * value[t] + mix * following)
        returns.append(following)
    return torch.stack(returns[::-1])
