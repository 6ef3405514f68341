"""The network behind a Gaussian prior, whichever model it is part of."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.distributions import Moments, read_moments
from worldmodel.dynamics.gaussian import GaussianDynamics
from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.dynamics.rssm_gaussian import GaussianRSSM

FILTERS = {"gaussian": GaussianDynamics, "rssm_gaussian": GaussianRSSM}


class PriorStep(NamedTuple):
    """What a step knows before the prior's network: certain parts of the next latent, and what its mean adds to."""

    inputs: Float[Tensor, "*R I"]
    certain: Float[Tensor, "*R det"]
    start: Float[Tensor, "*R stoch"]

    def moments(self, outputs: Float[Tensor, "*R moments"], min_std: float) -> Moments:
        """Mean and std [*R D] of the next latent from the network's outputs; std is 0 where the latent is certain."""
        change, std = read_moments(outputs, min_std)
        mean = torch.cat([self.certain, self.start + change], -1)
        return mean, torch.cat([torch.zeros_like(self.certain), std], -1)


def prior_step(model: Any, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> PriorStep:
    """The step of one of `FILTERS` up to its prior's network."""
    if isinstance(model, RecurrentState):
        h = model.recur(latent, action)
        return PriorStep(h, h, h.new_zeros(*h.shape[:-1], model.stochastic))
    return PriorStep(torch.cat([latent, action], -1), latent[..., :0], latent)


def prior_name(model: Any) -> str:
    """Its attribute that is the prior's network."""
    return "prior" if isinstance(model, RecurrentState) else "change"


def prior_net(model: Any) -> nn.Sequential:
    """The prior's network, whose last layer says mean and std."""
    net = getattr(model, prior_name(model))
    assert isinstance(net[-1], nn.Linear), net
    return net
