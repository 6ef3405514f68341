"""The policy that takes the best of finitely many actions by their values."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.action_values.discrete_q import DiscreteQ
from worldmodel.distributions import uniform
from worldmodel.interfaces import Noise
from worldmodel.limits import require_number


class GreedyQActor(nn.Module):
    """argmax_a Q(z, a), and in a share `epsilon` of samples any choice, in each group of choices on its own.

    Actions are those of the set whatever the latent: finite, and in [-1, 1].
    """

    def __init__(self, *, q: DiscreteQ, epsilon: float = 0.1) -> None:
        require_number(epsilon=epsilon, least=0, most=1)
        super().__init__()
        self.q, self.epsilon = q, epsilon

    def mode(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R A"]:
        return self.q.actions.action(self.q.choose(latent))

    def sample(self, latent: Float[Tensor, "*R D"], *, generator: Noise) -> Float[Tensor, "*R A"]:
        """An ε-greedy action."""
        best = self.q.choose(latent)
        chance, other = uniform(*best.shape, 2, generator=generator, device=latent.device).unbind(-1)
        drawn = (other * self.q.actions.choices).long().clamp_max(self.q.actions.choices - 1)
        return self.q.actions.action(torch.where(chance < self.epsilon, drawn, best))
