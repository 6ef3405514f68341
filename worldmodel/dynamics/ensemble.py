"""A bootstrap ensemble of transition models in the latent space of one filter (equation 5.3.3).

Members predict the same filter's latents, held still: in latent spaces of their own their disagreement would mean
nothing. Chua et al., Deep Reinforcement Learning in a Handful of Trials (2018).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldmodel.distributions import Moments, read_moments
from worldmodel.dynamics.gaussian import GaussianDynamics
from worldmodel.dynamics.member_steps import MemberSteps
from worldmodel.dynamics.rssm_categorical import CategoricalRSSM
from worldmodel.dynamics.rssm_gaussian import GaussianRSSM
from worldmodel.interfaces import Batch, Belief
from worldmodel.limits import require_number
from worldmodel.uncertainty.members import bootstrap_weights, member_mlp

# deterministic latents are not among them: they are shaped by the very f that members would replace
FILTERS = {"gaussian": GaussianDynamics, "rssm_categorical": CategoricalRSSM, "rssm_gaussian": GaussianRSSM}


class EnsembleDynamics(MemberSteps):
    """The filter of another model, and M members p_m(s' | s, a), Gaussian steps from its latents.

    Every member sees each transition as often as its own bootstrap drew it, by the row that it arrives at.

    Args:
        hidden, layers: width and number of the members' hidden layers.
        min_std: least std of every Gaussian.
        options: those of `MemberSteps`.
    """

    filters = FILTERS
    options_go_to = MemberSteps

    def __init__(self, *, hidden: int = 200, layers: int = 2, min_std: float = 0.03, **options: Any) -> None:
        require_number(min_std=min_std, least=0)
        super().__init__(**options)
        D = self.latent_dim
        self.noisy_dims, self.min_std = D, min_std
        self.change = member_mlp(self.members, D + self.action_dim, hidden, layers, 2 * D)

    def moments(self, latent: Float[Tensor, "M R D"], action: Float[Tensor, "M R A"]) -> Moments:
        change, std = read_moments(self.change(torch.cat([latent, action], -1)), self.min_std)
        return latent + change, std

    def losses(self, belief: Belief, batch: Batch) -> dict[str, Float[Tensor, "B T"]]:
        """The filter's losses, and the members' -log p_m(s_t | s_t-1, a_t-1), nats per dimension up to a constant."""
        # stop-grad: latents are the filter's to shape
        latent = belief.latent.detach()
        mean, std = self.of_all(latent[:, :-1], batch.action[:, 1:])
        miss = (0.5 * ((latent[:, 1:] - mean) / std).square() + std.log()).mean(-1)
        names = batch.row_names()
        if names is not None:  # rows that nothing names belong to every member once
            miss = bootstrap_weights(names[:, 1:], self.members) * miss
        members = F.pad(miss.mean(0) * belief.continued(batch.is_first).to(miss.dtype), (1, 0))
        return {**self.filter.losses(belief, batch), "members": members}


make = EnsembleDynamics
