"""The one sample, score, refit loop that every shooting planner runs (Algorithm 21)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.planners.deadline import Deadline
from worldmodel.simulator import propose_sequences, score


@dataclass(frozen=True, slots=True)
class Proposal:
    """A diagonal Gaussian over action sequences."""

    mean: Float[Tensor, "B H A"]
    std: Float[Tensor, "B H A"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates and the returns that the model predicts for them, -inf for those that must not count."""

    actions: Float[Tensor, "B N H A"]
    scores: Float[Tensor, "B N"]

    def joined(self, other: "Scored") -> "Scored":
        """Both sets of candidates."""
        return Scored(torch.cat([self.actions, other.actions], 1), torch.cat([self.scores, other.scores], 1))

    def best(self, count: int) -> "Scored":
        """The `count` candidates with the highest scores, best first."""
        scores, index = self.scores.topk(min(count, self.scores.shape[1]), dim=1)
        return Scored(self.actions.gather(1, index[:, :, None, None].expand(-1, -1, *self.actions.shape[2:])), scores)


class Shooting(ABC):
    """Sample sequences from a Gaussian, score them in the simulator, refit the Gaussian, repeat.

    horizon: decisions looked ahead. candidates: samples per iteration. init_std: of the first Gaussian, for actions
    in [-1, 1]. policy_candidates: sequences of the simulator's policy that join every iteration. Rows of a batch are
    planned for independently. What a planner executes is `refit`'s mean, or the best candidate ever where
    `execute_best`; `kept` of the best candidates of an iteration compete again in the next.
    """

    execute_best = False
    kept = 0
    remembered = 1  # of the best candidates ever, for `_execute`

    def __init__(
        self, *, horizon: int, candidates: int, iterations: int, init_std: float, policy_candidates: int
    ) -> None:
        for name, number in {"horizon": horizon, "candidates": candidates, "iterations": iterations}.items():
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        self.horizon, self.candidates, self.iterations = horizon, candidates, iterations
        self.init_std, self.policy_candidates = init_std, policy_candidates

    @abstractmethod
    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """A new proposal from scored candidates: the line in which shooting planners differ."""

    def counts(self, iterations: int) -> Sequence[int]:
        """Samples of every iteration."""
        return [self.candidates] * iterations

    def sample(self, proposal: Proposal, count: int, generator: Noise) -> Float[Tensor, "B N H A"]:
        """Sequences of the proposal, not yet clipped, its mean first."""
        noise = self.noise((proposal.mean.shape[0], count, *proposal.mean.shape[1:]), proposal.mean.device, generator)
        noise[:, 0] = 0
        return torch.addcmul(proposal.mean[:, None], noise, proposal.std[:, None])

    def noise(self, shape: tuple[int, ...], device: torch.device, generator: Noise) -> Float[Tensor, "B N H A"]:
        """Standard noise, white over time."""
        return standard_normal(*shape, generator=generator, device=device)

    def plan(
        self,
        simulator: Simulator,
        latent: Float[Tensor, "B D"],
        *,
        warm: Float[Tensor, "B H A"] | None = None,
        generator: Noise = None,
        deadline: float | None = None,
        iterations: int | None = None,
    ) -> Plan:
        """A plan [B H A] from latents [B D]; `warm` is the last plan, shifted by one decision.

        The first iteration starts around `warm`; where that is None or NaN, around the mean of the policy's
        sequences. A latent that is not finite gets an action within bounds and the value -inf.
        """
        usable = latent.isfinite().all(-1)
        latent = torch.where(usable[:, None], latent, 0.0)
        pool = self._policy(simulator, latent, usable, generator)
        mean = _start(pool, warm, (latent.shape[0], self.horizon, simulator.action_dim), latent)
        proposal = Proposal(mean=mean, std=torch.full_like(mean, self.init_std))
        best = Scored(mean[:, None], latent.new_full((len(latent), 1), -torch.inf))
        timer, policy = Deadline(deadline, latent.device), pool
        for count in self.counts(self.iterations if iterations is None else iterations):
            if not timer.allows_another():
                break
            fresh = _scored(simulator, latent, usable, self.sample(proposal, count, generator))
            pool = fresh if pool is None else fresh.joined(pool)
            best = best.joined(pool).best(self.remembered)
            proposal = self.refit(proposal, pool)
            pool = self._keep(pool, policy)
        return self._execute(simulator, latent, usable, proposal, best)

    def _policy(self, simulator: Simulator, latent: Tensor, usable: Tensor, generator: Noise) -> Scored | None:
        """The policy's sequences, scored once: they are the same in every iteration."""
        if not self.policy_candidates:
            return None
        count, horizon = self.policy_candidates, self.horizon
        actions = propose_sequences(simulator, latent, count=count, horizon=horizon, generator=generator)
        return None if actions is None else _scored(simulator, latent, usable, actions)

    def _keep(self, pool: Scored, policy: Scored | None) -> Scored | None:
        return pool.best(self.kept) if self.kept else policy

    def _execute(self, simulator: Simulator, latent: Tensor, usable: Tensor, proposal: Proposal, best: Scored) -> Plan:
        top, top_score = best.actions[:, 0], best.scores[:, 0]
        sound = proposal.mean.isfinite().all(-1).all(-1)
        # before the first iteration, and where no candidate was finite, nothing is known to be better than the mean
        take_best = (finite(top_score[:, None])[:, 0] if self.execute_best else torch.zeros_like(sound)) | ~sound
        mean = torch.where(take_best[:, None, None], top, proposal.mean).clamp(-1, 1)
        if self.execute_best:
            value = top_score
        else:
            # not the best candidate's score: the maximum over noisy promises is a promise that nothing keeps
            value = score(simulator, latent, mean[:, None])[:, 0]
        return Plan(action=mean[:, 0], mean=mean, value=torch.where(value.isfinite() & usable, value, -torch.inf))


def finite(scores: Float[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """Which candidates may count."""
    return scores > -torch.inf


def moments(proposal: Proposal, actions: Float[Tensor, "B N H A"], weight: Float[Tensor, "B N"]) -> Proposal:
    """The Gaussian with the weighted mean and std of `actions`; the proposal as it was where all weights are 0."""
    total = weight.sum(1)[:, None, None]
    share = weight[:, :, None, None] / total[:, None].clamp_min(torch.finfo(weight.dtype).tiny)
    mean = (share * actions).sum(1)
    std = (share * (actions - mean[:, None]).square()).sum(1).sqrt()
    return Proposal(torch.where(total > 0, mean, proposal.mean), torch.where(total > 0, std, proposal.std))


def _scored(simulator: Simulator, latent: Tensor, usable: Tensor, actions: Tensor) -> Scored:
    """Valid actions and their scores."""
    actions = actions.nan_to_num(0.0).clamp_(-1, 1)
    scores = score(simulator, latent, actions)
    return Scored(actions, torch.where(scores.isfinite() & usable[:, None], scores, -torch.inf))


def _start(pool: Scored | None, warm: Tensor | None, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """The first mean: the warm start where there is one, else the mean of the policy's sequences, else zeros."""
    fresh = like.new_zeros(shape) if pool is None else pool.actions.mean(1)
    return fresh if warm is None else torch.where(warm.isfinite(), warm, fresh).clamp(-1, 1)
