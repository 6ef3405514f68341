"""What local policies teach a network: states of their trajectories, with the Gaussian of their controls there."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.distributions import Moments
from worldmodel.local_models.control_space import Paths
from worldmodel.local_models.global_policy import supervised_kl
from worldmodel.local_models.linear_gaussian import LinearGaussianPolicy

_MIN_STD, _MAX_STD = 0.05, 1.0  # of a control, as what it teaches
_LEAST = 1e-8  # weight


class Teachers(nn.Module):
    """The samples of the last solved segments; buffers, so that a resumed run goes on with them.

    Args:
        starts, samples, steps: how many starts, trajectories of each, and their first steps.
        latent_dim, action_dim: sizes of states and controls.
    """

    samples_of_rank_zero = True
    states: Tensor
    target: Tensor
    precision: Tensor
    weight: Tensor

    def __init__(self, *, starts: int, samples: int, steps: int, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        size = (starts, samples, steps)
        self.steps = steps
        self.register_buffer("states", torch.zeros(*size, latent_dim))
        self.register_buffer("target", torch.zeros(*size, action_dim))
        self.register_buffer("precision", torch.eye(action_dim).repeat(*size, 1, 1))
        self.register_buffer("weight", torch.ones(starts))

    @torch.no_grad()
    def take(self, policy: LinearGaussianPolicy, paths: Paths, weight: Float[Tensor, "B"]) -> None:
        """Take the first steps of local policies' paths, by a weight of each: those that are not finite have none."""
        states = paths.states[:, :, : paths.controls.shape[2]]
        target = policy.mean(states.double())
        values, vectors = torch.linalg.eigh(policy.covariance)
        inverse = (vectors / values.clamp(_MIN_STD**2, _MAX_STD**2)[..., None, :]) @ vectors.mT
        finite = (states.flatten(1).isfinite().all(1) & target.flatten(1).isfinite().all(1)).to(weight)
        weight = finite * weight.clamp_min(_LEAST)
        self.states.copy_(states[:, :, : self.steps].nan_to_num(0.0, 0.0, 0.0))
        self.target.copy_(target[:, :, : self.steps].nan_to_num(0.0, 0.0, 0.0))
        self.precision.copy_(inverse[:, None, : self.steps].expand_as(self.precision))
        self.weight.copy_(weight / weight.mean().clamp_min(_LEAST))

    def loss(self, moments: Moments) -> Float[Tensor, ""]:
        """E KL(π || p) in nats of a step, from the network's moments at `states`."""
        kl = supervised_kl(*moments, self.target, self.precision)
        return (self.weight[:, None, None] * kl).mean()
