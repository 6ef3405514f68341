"""The cross-entropy method as PlaNet's ports write it, in eager torch: the peer that is always there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise, Plan, Simulator


@dataclass(kw_only=True, eq=False)
class PlainCEM:
    """Every candidate steps through the model layer by layer, and its rewards are summed on the way."""

    horizon: int = 12
    candidates: int = 1000
    elites: int = 100
    iterations: int = 10

    @torch.inference_mode()
    def plan(self, simulator: Simulator, latent: Float[Tensor, "B D"], *, generator: Noise = None) -> Plan:
        """Sample, roll out, keep the elites, refit; executes the mean."""
        assert generator is None or isinstance(generator, torch.Generator)
        B, H, A, N = len(latent), self.horizon, simulator.action_dim, self.candidates
        mean, std = latent.new_zeros(B, 1, H, A), latent.new_ones(B, 1, H, A)
        scores = latent.new_zeros(B, N)
        for _ in range(self.iterations):
            noise = torch.randn(B, N, H, A, generator=generator).to(latent)
            actions = (mean + std * noise).clamp_(-1, 1)
            scores = plain_returns(simulator, latent, actions)
            top = scores.topk(self.elites, dim=1).indices
            elites = actions.gather(1, top[:, :, None, None].expand(-1, -1, H, A))
            mean, std = elites.mean(1, keepdim=True), elites.std(1, correction=0, keepdim=True)
        return Plan(action=mean[:, 0, 0], mean=mean[:, 0], value=scores.amax(1))


def plain_returns(
    simulator: Simulator, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]
) -> Float[Tensor, "B N"]:
    """The bare rollouts: H steps of all candidates, a reward after each."""
    B, N, H, _ = actions.shape
    state = latent.repeat_interleave(N, 0)
    total = torch.zeros(B * N, dtype=latent.dtype, device=latent.device)
    for k in range(H):
        state = simulator.step(state, actions[:, :, k].flatten(0, 1))
        total += simulator.discount**k * simulator.reward(state)
    return total.view(B, N)
