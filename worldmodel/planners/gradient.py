"""Gradient shooting: Adam on action sequences through the model, with bounds by tanh."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Simulator
from worldmodel.limits import require_number, require_whole
from worldmodel.planners.search import Problem, Search
from worldmodel.planners.shooting import Scored
from worldmodel.records import choose
from worldmodel.simulators.latent import score_by_steps

# tanh is flat at its ends: a sequence that starts on a bound could never leave it
_EDGE = 0.98


@dataclass(kw_only=True, eq=False)
class GradientShooting(Search):
    """Improve `candidates` sequences by gradient ascent of their predicted return, and execute the best ever seen.

    They start from the warm start, the policy's sequences where it has any, and Gaussian samples of `init_std` around
    it.

    Args:
        candidates: N, sequences that are improved.
        learning_rate: of Adam on u, with a = tanh(u); gradients are normalised per sequence.
        init_std: std of the first Gaussian, for actions in [-1, 1].
        policy_candidates: P, sequences of the learned policy that take part, 0 for none.
    """

    horizon: int = 12
    candidates: int = 8
    iterations: int = 15
    learning_rate: float = 0.2
    init_std: float = 0.5
    policy_candidates: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(candidates=self.candidates)
        require_number(learning_rate=self.learning_rate, above=0)
        require_number(init_std=self.init_std, least=0)
        require_whole(policy_candidates=self.policy_candidates, least=0, most=max(1, self.candidates - 1))

    def search(self, problem: Problem) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """The best sequence that any ascent came by."""
        best = ascend(
            problem.simulator,
            problem.latent,
            self._starts(problem),
            rounds=problem.rounds(range(1, problem.iterations + 1)),
            rate=self.learning_rate,
        ).best(1)
        return best.actions[:, 0], best.scores[:, 0]

    def _starts(self, problem: Problem) -> Float[Tensor, "B N H A"]:
        latent = problem.latent
        shape = (latent.shape[0], self.candidates, self.horizon, problem.simulator.action_dim)
        noise = standard_normal(*shape, generator=problem.generator, device=latent.device).to(latent.dtype)
        noise[:, 0] = 0
        centre = problem.warm_or(noise[:, 0])
        starts = (centre[:, None] + self.init_std * noise).clamp(-1, 1)
        policy = problem.policy(self.policy_candidates, self.horizon)
        return starts if policy is None else torch.cat([starts[:, : -self.policy_candidates], policy], 1)


def ascend(
    simulator: Simulator,
    latent: Float[Tensor, "B D"],
    actions: Float[Tensor, "B N H A"],
    *,
    rounds: Iterable[int],
    rate: float,
) -> Scored:
    """The best state of every sequence along the rounds 1, 2, ... of Adam, the start included; -inf where none was
    finite.

    Works inside inference_mode too. A sequence whose gradient is not finite stays where it is.
    """
    with torch.inference_mode(False), torch.enable_grad():
        latent, actions = latent.clone().detach(), actions.clone().detach()
        u = (actions * _EDGE).atanh()
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        best = _evaluate(simulator, latent, actions)
        for step in rounds:
            scores, gradient = _gradient(simulator, latent, u)
            best = _better(best, Scored(u.tanh(), scores))
            first, second = first.lerp(gradient, 0.1), second.lerp(gradient.square(), 0.1)
            size = (second / (1 - 0.9**step)).sqrt().clamp_min(1e-8)
            u = u + rate * (first / (1 - 0.9**step)) / size
        return _better(best, _evaluate(simulator, latent, u.tanh()))


def _gradient(simulator: Simulator, latent: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [B N] at tanh(u), -inf where not finite, and the direction of their increase, of unit norm."""
    u = u.detach().requires_grad_()
    scores = score_by_steps(simulator, latent, u.tanh())
    # zero where nothing depends on the actions, so that a constant model is no error
    total = scores.sum() + 0.0 * u.sum()
    (gradient,) = torch.autograd.grad(total, u)
    sound = scores.isfinite() & gradient.isfinite().all(-1).all(-1)
    # a row whose score is not finite has a gradient of its own that is not finite: rows do not mix in a sum
    gradient = torch.where(sound[:, :, None, None], gradient, 0.0)
    norm = gradient.square().sum((-2, -1), keepdim=True).sqrt()
    direction = torch.where(norm.isfinite() & (norm > 0), gradient / norm.clamp_min(1e-30), 0.0)
    return torch.where(scores.isfinite(), scores, -torch.inf).detach(), direction


def _evaluate(simulator: Simulator, latent: Tensor, actions: Tensor) -> Scored:
    # as gradients are taken: what is compared must be rounded alike
    with torch.no_grad():
        scores = score_by_steps(simulator, latent, actions)
        return Scored(actions.detach(), torch.where(scores.isfinite(), scores, -torch.inf))


def _better(one: Scored, two: Scored) -> Scored:
    return choose(two.scores > one.scores, two, one)


make = GradientShooting
