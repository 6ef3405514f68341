"""The one sample, score, refit loop that every shooting planner runs (Algorithm 21)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise
from worldmodel.limits import require_whole
from worldmodel.planners.search import Found, Problem, Search
from worldmodel.simulators.latent import score


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


@dataclass(kw_only=True, eq=False)
class Shooting(Search):
    """Sample sequences from a Gaussian, score them in the simulator, refit the Gaussian, repeat.

    Args:
        candidates: samples per iteration.
        init_std: of the first Gaussian, for actions in [-1, 1].
        policy_candidates: sequences of the simulator's policy that compete in every iteration, 0 for the plain method.
            Where a planner keeps the best `kept` candidates of an iteration for the next, they compete in the first
            and by what is kept of them. What is executed is `refit`'s mean, or the best candidate ever where
            `execute_best`.
    """

    horizon: int = 12
    candidates: int = 1000
    init_std: float = 1.0
    policy_candidates: int = 0

    execute_best = False
    kept = 0
    remembered = 1  # of the best candidates ever, for `_execute`

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(candidates=self.candidates)
        require_whole(policy_candidates=self.policy_candidates, least=0)

    @abstractmethod
    def refit(self, proposal: Proposal, pool: Scored) -> Proposal:
        """A new proposal from scored candidates: the line in which shooting planners differ."""

    def first(self, problem: Problem, policy: Float[Tensor, "B P H A"] | None) -> tuple[Proposal, Scored | None]:
        """Around the warm start, where there is none around the mean of the policy's sequences, else around zeros.

        Returns:
            The proposal, and the policy's sequences scored where it took that: else the first iteration scores them
            with its own samples, at once.
        """
        size = (len(problem.latent), self.horizon, problem.simulator.action_dim)
        fresh = problem.latent.new_zeros(size) if policy is None else policy.mean(1)
        mean = problem.warm_or(fresh).clamp(-1, 1)
        return Proposal(mean, torch.full_like(mean, self.init_std)), None

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

    @torch.no_grad()
    def search(self, problem: Problem) -> Found:
        """Algorithm 21."""
        sequences = problem.policy(self.policy_candidates, self.horizon)
        proposal, policy = self.first(problem, sequences)
        pool = policy
        best = Scored(proposal.mean[:, None], proposal.mean.new_full((len(proposal.mean), 1), -torch.inf))
        for count in problem.rounds(self.counts(problem.iterations)):
            samples = self.sample(proposal, count, problem.generator)
            if sequences is not None and policy is None:  # once: they are the same in every iteration
                pool = scored(problem, torch.cat([samples, sequences], 1))
                policy = Scored(pool.actions[:, count:], pool.scores[:, count:])
            else:
                fresh = scored(problem, samples)
                pool = fresh if pool is None else fresh.joined(pool)
            if self.execute_best:
                best = best.joined(pool.best(self.remembered)).best(self.remembered)
            proposal = self.refit(proposal, pool)
            pool = self._keep(pool, policy)
        return Found(*self._execute(problem, proposal, best), std=proposal.std)

    def _keep(self, pool: Scored, policy: Scored | None) -> Scored | None:
        return pool.best(self.kept) if self.kept else policy

    def _execute(self, problem: Problem, proposal: Proposal, best: Scored) -> tuple[Tensor, Tensor]:
        top, top_score = best.actions[:, 0], best.scores[:, 0]
        if self.execute_best:
            # before the first iteration, and where no candidate was finite, nothing is known to be better than the mean
            known = finite(top_score)[:, None, None]
            return torch.where(known, top, proposal.mean).clamp(-1, 1), top_score
        mean = proposal.mean.clamp(-1, 1)
        # not the best candidate's score: the maximum over noisy promises is a promise that nothing keeps
        return mean, score(problem.simulator, problem.latent, mean[:, None])[:, 0]


def finite(scores: Float[Tensor, "*R"]) -> Bool[Tensor, "*R"]:
    """Which candidates may count."""
    return scores > -torch.inf


def moments(proposal: Proposal, actions: Float[Tensor, "B N H A"], weight: Float[Tensor, "B N"]) -> Proposal:
    """The Gaussian with the weighted mean and std of `actions`; the proposal as it was where all weights are 0."""
    total = weight.sum(1)[:, None, None]
    share = weight[:, None] / total.clamp_min(torch.finfo(weight.dtype).tiny)
    shape = proposal.mean.shape
    mean = (share @ actions.flatten(2)).view(shape)  # one product: few candidates wait for operations, not for sums
    std = (share @ (actions - mean[:, None]).square_().flatten(2)).view(shape).sqrt_()
    some = total > 0
    return Proposal(torch.where(some, mean, proposal.mean), torch.where(some, std, proposal.std))


def scored(problem: Problem, actions: Float[Tensor, "B N H A"]) -> Scored:
    """Finite actions, within bounds, and their scores."""
    actions = actions.clamp_(-1, 1)
    scores = score(problem.simulator, problem.latent, actions)
    bad = -torch.inf
    return Scored(actions, scores.nan_to_num(nan=bad, posinf=bad, neginf=bad).add_(problem.handicap))
