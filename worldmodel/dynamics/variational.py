"""A model whose prior has mean-field Gaussian weights, and members that are draws of them (5.3.3).

Blundell et al., Weight Uncertainty in Neural Networks (2015). Weights are worth what the data say of them: their KL is
shared out over all recorded rows.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import Moments
from worldmodel.dynamics.member_steps import MemberSteps
from worldmodel.dynamics.prior_steps import FILTERS, prior_name, prior_net, prior_step
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_number
from worldmodel.uncertainty.members import member_noise
from worldmodel.uncertainty.variational import VariationalNet


class VariationalDynamics(MemberSteps):
    """Another model with a distribution over its prior's weights, which learns by samples; M fixed draws are members.

    Args:
        prior_scale: std of the weights' prior, over the root of a layer's inputs.
        temperature: weight of the weights' KL; 1 is Bayes' rule, less believes the data more often than they came.
        options: those of `MemberSteps`.
    """

    filters = FILTERS
    options_go_to = MemberSteps

    def __init__(self, *, prior_scale: float = 1.0, temperature: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        require_number(prior_scale=prior_scale, temperature=temperature, above=0)
        net = prior_net(self.filter)
        last: Any = net[-1]
        self.noisy_dims, self.temperature = last.out_features // 2, temperature
        setattr(self.filter, prior_name(self.filter), VariationalNet(net, prior_scale=prior_scale))
        for i, size in enumerate(self.net.sizes):
            self.register_buffer(f"noise_{i}", member_noise(self.members, *size, seed=i), persistent=False)
        self.rows: int | None = None

    @property
    def net(self) -> VariationalNet:
        """The prior's network, a part of the filter."""
        return getattr(self.filter, prior_name(self.filter))

    def moments(self, latent: Float[Tensor, "M R D"], action: Float[Tensor, "M R A"]) -> Moments:
        step = prior_step(self.filter, latent, action)
        noise = [getattr(self, f"noise_{i}") for i in range(len(self.net.sizes))]
        return step.moments(self.net.drawn(step.inputs, noise), self.filter.min_std)

    def count_rows(self, rows: int) -> None:
        self.rows = rows

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """The model's losses, and in each row's `kl` its share of the weights'; the rows are those of `count_rows`."""
        losses = self.filter.losses(belief, batch)
        share = self.temperature * self.net.kl() / (self.rows or batch.reward.numel())
        return {**losses, "kl": losses["kl"] + share}

    @torch.no_grad()
    def report(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Both uncertainties, and the weights' KL in nats, `model/weights_kl`."""
        return {**super().report(belief, batch), "model/weights_kl": self.net.kl()}


make = VariationalDynamics
