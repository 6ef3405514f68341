"""A model whose prior's mean has a posterior over its last layer, and members that are draws from it (5.3.3).

Nothing is learned beside the model: the posterior is read off what its prior missed. Daxberger et al., Laplace
Redux (2021).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import HasRollout
from worldmodel.distributions import Moments
from worldmodel.dynamics.member_steps import MemberSteps
from worldmodel.dynamics.prior_steps import FILTERS, prior_net, prior_step
from worldmodel.interfaces import Batch, Belief
from worldmodel.uncertainty.last_layer import LastLayerPosterior
from worldmodel.uncertainty.members import member_noise


class LaplaceDynamics(MemberSteps):
    """Another model, with M draws of its prior's last layer as members; their mean is that model's own prediction.

    Args:
        precision, rate: as in `LastLayerPosterior`. Noise is fixed, so that members move with the posterior alone.
        options: those of `MemberSteps`.
    """

    filters = FILTERS
    options_go_to = MemberSteps
    noise: Tensor
    drawn: Tensor

    def __init__(self, *, precision: float = 1.0, rate: float = 0.01, **options: Any) -> None:
        super().__init__(**options)
        last: Any = prior_net(self.filter)[-1]
        self.noisy_dims = last.out_features // 2
        self.posterior = LastLayerPosterior(last.in_features, self.noisy_dims, precision=precision, rate=rate)
        noise = member_noise(self.members, last.in_features + 1, self.noisy_dims)
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("drawn", self.posterior.draws(noise))
        if isinstance(self.filter, HasRollout):
            self.rollout = self.filter.rollout

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The model's own mean, which that of the draws is."""
        return self.filter.predict(latent, action)

    def moments(self, latent: Float[Tensor, "M R D"], action: Float[Tensor, "M R A"]) -> Moments:
        step, features, outputs = self._read(latent, action)
        mean, std = step.moments(outputs, self.filter.min_std)
        deviation = torch.baddbmm(self.drawn[:, -1:], features.to(self.drawn.dtype), self.drawn[:, :-1])
        return torch.cat([step.certain, mean[..., -self.noisy_dims :] + deviation], -1), std

    def count_rows(self, rows: int) -> None:
        self.posterior.count_rows(rows)

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """The model's losses, which its posterior is read off beside; in training only."""
        if self.training:
            self._condition(belief.latent.detach(), batch.action, belief.continued(batch.is_first))
        return self.filter.losses(belief, batch)

    @torch.no_grad()
    def _condition(self, latent: Tensor, action: Tensor, inside: Tensor) -> None:
        step, features, outputs = self._read(latent[:, :-1], action[:, 1:])
        mean, _ = step.moments(outputs, self.filter.min_std)
        missed = (latent[:, 1:] - mean)[..., -self.noisy_dims :]
        self.posterior.add(features.flatten(0, 1), missed.flatten(0, 1), inside.flatten().to(missed.dtype))
        self.drawn.copy_(self.posterior.draws(self.noise))

    def _read(self, latent: Tensor, action: Tensor) -> tuple[Any, Tensor, Tensor]:
        """The step, what the last layer reads there, and what it says."""
        *hidden, last = prior_net(self.filter)
        step = prior_step(self.filter, latent, action)
        features = step.inputs
        for layer in hidden:
            features = layer(features)
        return step, features, last(features)


make = LaplaceDynamics
