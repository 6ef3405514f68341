"""Cross-entropy method (Algorithm 21)."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.planners.shooting import Proposal, finite, search


class CEM:
    """Refit a Gaussian to the elites, and execute its mean.

    horizon: decisions looked ahead. candidates, elites: samples per iteration, and how many of them refit.
    momentum: how much of the old proposal each refit keeps. init_std, min_std: of actions in [-1, 1].
    policy_candidates: sequences of the learned policy that join the samples, 0 for the plain method.
    """

    def __init__(
        self,
        *,
        horizon: int = 12,
        candidates: int = 1000,
        elites: int = 100,
        iterations: int = 10,
        momentum: float = 0.0,
        init_std: float = 1.0,
        min_std: float = 0.0,
        policy_candidates: int = 0,
    ) -> None:
        if not 0 < elites <= candidates:
            raise ValueError(f"elites: expected 1 to candidates={candidates}, got {elites}")
        for name, number in {"horizon": horizon, "iterations": iterations}.items():
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        self.horizon, self.candidates, self.elites, self.iterations = horizon, candidates, elites, iterations
        self.momentum, self.init_std, self.min_std = momentum, init_std, min_std
        self.policy_candidates = policy_candidates

    def plan(
        self,
        simulator: Simulator,
        latent: Float[Tensor, "B D"],
        *,
        warm: Float[Tensor, "B H A"] | None = None,
        generator: Noise = None,
    ) -> Plan:
        """A plan [B H A] from latents [B D]; `warm` is the last plan, shifted by one decision."""
        return search(
            simulator,
            latent,
            self.refit,
            horizon=self.horizon,
            candidates=self.candidates,
            iterations=self.iterations,
            policy_candidates=self.policy_candidates,
            init_std=self.init_std,
            warm=warm,
            generator=generator,
        )

    def refit(self, proposal: Proposal, actions: Float[Tensor, "B N H A"], scores: Float[Tensor, "B N"]) -> Proposal:
        """Mean and std of the best candidates; where none is finite, the proposal as it was."""
        top, index = scores.topk(self.elites, dim=1)
        chosen = actions.gather(1, index[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
        weight = finite(top)[:, :, None, None].to(actions.dtype)
        count = weight.sum(1).clamp_min(1)
        mean = (weight * chosen).sum(1) / count
        std = ((weight * (chosen - mean[:, None]).square()).sum(1) / count).sqrt()
        mean = torch.lerp(mean, proposal.mean, self.momentum)
        std = torch.lerp(std, proposal.std, self.momentum).clamp_min(self.min_std)
        some = finite(top)[:, :1, None]
        return Proposal(mean=torch.where(some, mean, proposal.mean), std=torch.where(some, std, proposal.std))


make = CEM
