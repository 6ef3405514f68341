"""Gradient shooting: Adam on action sequences through the model, with bounds by tanh."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.planners.deadline import Deadline
from worldmodel.planners.shooting import Scored
from worldmodel.simulator import propose_sequences, score

# tanh is flat at its ends: a sequence that starts on a bound could never leave it
_EDGE = 0.98


class GradientShooting:
    """Improve `candidates` sequences by gradient ascent of their predicted return, and execute the best ever seen.

    They start from the warm start, the policy's sequences where it has any, and Gaussian samples of `init_std`
    around it. learning_rate: of Adam on u, with a = tanh(u); gradients are normalised per sequence.
    """

    def __init__(
        self,
        *,
        horizon: int = 12,
        candidates: int = 8,
        iterations: int = 15,
        learning_rate: float = 0.2,
        init_std: float = 0.5,
        policy_candidates: int = 0,
    ) -> None:
        for name, number in {"horizon": horizon, "candidates": candidates, "iterations": iterations}.items():
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        if policy_candidates >= candidates > 1:
            raise ValueError(f"policy_candidates: expected fewer than candidates={candidates}, got {policy_candidates}")
        self.horizon, self.candidates, self.iterations = horizon, candidates, iterations
        self.learning_rate, self.init_std, self.policy_candidates = learning_rate, init_std, policy_candidates

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
        """A plan [B H A] from latents [B D]; `warm` is the last plan, shifted by one decision."""
        usable = latent.isfinite().all(-1)
        latent = torch.where(usable[:, None], latent, 0.0)
        starts = self._starts(simulator, latent, warm, generator)
        best = ascend(
            simulator,
            latent,
            starts,
            steps=self.iterations if iterations is None else iterations,
            learning_rate=self.learning_rate,
            timer=Deadline(deadline, latent.device),
        ).best(1)
        mean, value = best.actions[:, 0], best.scores[:, 0]
        return Plan(action=mean[:, 0], mean=mean, value=torch.where(usable, value, -torch.inf))

    def _starts(
        self, simulator: Simulator, latent: Tensor, warm: Tensor | None, generator: Noise
    ) -> Float[Tensor, "B N H A"]:
        shape = (latent.shape[0], self.candidates, self.horizon, simulator.action_dim)
        noise = standard_normal(*shape, generator=generator, device=latent.device).to(latent.dtype)
        noise[:, 0] = 0
        centre = noise[:, 0] if warm is None else torch.where(warm.isfinite(), warm, 0.0)
        starts = (centre[:, None] + self.init_std * noise).clamp(-1, 1)
        count = self.policy_candidates
        if not count:
            return starts
        policy = propose_sequences(simulator, latent, count=count, horizon=self.horizon, generator=generator)
        return starts if policy is None else torch.cat([starts[:, :-count], policy.nan_to_num(0.0).clamp(-1, 1)], 1)


def ascend(
    simulator: Simulator,
    latent: Float[Tensor, "B D"],
    actions: Float[Tensor, "B N H A"],
    *,
    steps: int,
    learning_rate: float,
    timer: Deadline,
) -> Scored:
    """The best state of every sequence along `steps` of Adam, the start included; -inf where none was finite.

    Works inside inference_mode too. A sequence whose gradient is not finite stays where it is.
    """
    with torch.inference_mode(False), torch.enable_grad():
        latent, actions = latent.clone(), actions.clone()
        u = (actions * _EDGE).atanh()
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        best = _evaluate(simulator, latent, actions)
        for step in range(1, steps + 1):
            if not timer.allows_another():
                break
            scores, gradient = _gradient(simulator, latent, u)
            best = _better(best, Scored(u.tanh(), scores))
            first, second = first.lerp(gradient, 0.1), second.lerp(gradient.square(), 0.1)
            size = (second / (1 - 0.9**step)).sqrt().clamp_min(1e-8)
            u = u + learning_rate * (first / (1 - 0.9**step)) / size
        return _better(best, _evaluate(simulator, latent, u.tanh()))


def _gradient(simulator: Simulator, latent: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [B N] at tanh(u), -inf where not finite, and the direction of their increase, of unit norm."""
    u = u.detach().requires_grad_()
    scores = score(simulator, latent, u.tanh())
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
    with torch.no_grad():
        scores = score(simulator, latent, actions)
        return Scored(actions.detach(), torch.where(scores.isfinite(), scores, -torch.inf))


def _better(one: Scored, two: Scored) -> Scored:
    wins = two.scores > one.scores
    return Scored(
        torch.where(wins[:, :, None, None], two.actions, one.actions).detach(),
        torch.where(wins, two.scores, one.scores),
    )


make = GradientShooting
