"""Local controllers that live through several updates: buffers, so that a resumed run goes on with them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.local_models.linear_gaussian import LinearGaussianPolicy


class LocalControllers(nn.Module):
    """One linear-Gaussian policy for each start, the price λ of its KL from the global policy, and its step size."""

    samples_of_rank_zero = True
    start: Tensor
    price: Tensor
    step: Tensor
    K: Tensor
    k: Tensor
    covariance: Tensor

    def __init__(self, *, starts: int, horizon: int, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        empty, size = torch.zeros((), dtype=torch.float64), (starts, horizon, action_dim)
        self.register_buffer("start", empty.repeat(starts, latent_dim))
        self.register_buffer("price", empty.repeat(starts) + 1)
        self.register_buffer("step", empty.repeat(starts) + 1)
        self.register_buffer("K", empty.repeat(*size, latent_dim))
        self.register_buffer("k", empty.repeat(*size))
        self.register_buffer("covariance", torch.eye(action_dim).to(empty).repeat(starts, horizon, 1, 1))

    @property
    def policy(self) -> LinearGaussianPolicy:
        """The controllers; a copy."""
        return LinearGaussianPolicy(self.K.clone(), self.k.clone(), self.covariance.clone())

    def take(self, policy: LinearGaussianPolicy, price: Float[Tensor, "B"]) -> None:
        """Take improved controllers, those that are finite, and all prices."""
        policy = policy.where_finite(self.policy)
        self.K.copy_(policy.K)
        self.k.copy_(policy.k)
        self.covariance.copy_(policy.covariance)
        self.price.copy_(price)
