"""Dynamics and rewards that are known, where a world has learned ones; no value and no policy beside them."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.heads.head import Head
from worldmodel.interfaces import Noise
from worldmodel.simulators.latent import LatentSimulator


class OwnReward:
    """No value and no policy: planners look as far as their horizon, and sample on their own."""

    discount = 1.0

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Nothing is known of what follows."""
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """There is no policy."""
        return None


class KnownReward(Head):
    """A function of latents where a learned reward would be."""

    def __init__(self, reward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self._reward = nn.Sequential(), reward

    def read(self, outputs: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Of latents."""
        return self._reward(outputs)

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Zeros: nothing is learned."""
        return torch.zeros_like(target)


class KnownDynamics:
    """A function of latents and actions where a learned model would be."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._step = step

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """The next state."""
        return self._step(latent, action)

    imagine = predict


def known_world(
    step: Callable[[Tensor, Tensor], Tensor], reward: Callable[[Tensor], Tensor], *, action_dim: int
) -> LatentSimulator:
    """A world of known equations as a learned one, undiscounted."""
    dynamics, head = KnownDynamics(step), KnownReward(reward)
    return LatentSimulator(dynamics=dynamics, reward=head, value=None, actor=None, action_dim=action_dim, discount=1.0)
